"""Audio tasks copied from the hub into a mirror folder: the files as they are, one table beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from . import audio, audio_hub
from .task_spec import DataSet, Splits, TaskSpec

_ENDINGS = {b"RIFF": "wav", b"fLaC": "flac", b"OggS": "ogg", b"FORM": "aiff"}


def fill(task: TaskSpec, target: Path) -> tuple[dict[str, Any], str]:
    """Write the files and ``metadata.parquet`` of a task to ``target``; gives the rest of its ``info.json``.

    All rows of the hub's splits are written, also those that the task selects from; rows without a label, or of
    classes that the task does not have, are left out. Gives also the revision.
    """
    groups = [splits for splits in (task.train, task.validation, task.test) if splits is not None]
    parts = dict.fromkeys(part for splits in groups for part in splits.hub.split("+"))
    columns = dict.fromkeys(column for splits in groups for column in splits.where)
    if task.data.speaker_column:
        columns[task.data.speaker_column] = None
    (target / "audio").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for part in parts:
        written, revision = _fill_part(task.data, part, list(columns), target)
        rows += written
    table = target / "metadata.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table, compression="zstd")
    info = {
        "audio_column": "file_name",
        "columns": list(rows[0]),
        "metadata": {"file": table.name, "rows": len(rows), "sha256": _sha256(table.read_bytes())},
        "splits": {part: _entry([row for row in rows if row["split"] == part]) for part in parts},
    }
    return info, revision


def _fill_part(data: DataSet, part: str, columns: list[str], target: Path) -> tuple[list[dict[str, Any]], str]:
    table, indices, labels, revision = audio_hub.select(data, Splits(part, ()))
    names = {name: i for i, name in enumerate(data.label_names)}
    values = {column: list(table[data.columns.get(column, column)]) for column in columns}
    rows = []
    for index, label in zip(indices, labels, strict=True):
        if label == -1:
            continue
        content = audio_hub.content(table, index, data)
        name = f"audio/{part}-{index:06d}.{_ENDINGS.get(content[:4], 'mp3')}"
        rate, samples = audio.describe(content, f"{data.hub}, split {part}, row {index}")
        (target / name).write_bytes(content)
        rows.append(
            {
                "file_name": name,
                "label": names.get(label, label),
                "split": part,
                **{column: values[column][index] for column in columns},
                "sample_rate": rate,
                "n_samples": samples,
                "sha256": _sha256(content),
            }
        )
    return rows, revision


def _entry(rows: list[dict[str, Any]]) -> dict[str, Any]:
    lines = "".join(f"{row['sha256']}  {row['file_name']}\n" for row in rows)
    return {"rows": len(rows), "sha256": _sha256(lines.encode())}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
