"""Audio tasks from a folder: ``info.json``, a table with one row per file, and the files themselves."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .clips import Clip, Clips, join_clips
from .errors import CorruptDataError, LayoutError, SourceUnavailableError
from .mirror import absent, find, read_info, revision_of, split_names
from .rows import align
from .source import Found
from .task_spec import DataSet, Splits, TaskSpec

_AGAIN = "Copy it again from where the folder came from, or fill the folder anew with `klnorm mirror`."


def read(spec: TaskSpec) -> Found:
    """The whole task from the first mirror that has it; raises ``SourceUnavailableError`` if none has."""
    folder = find(spec.data)
    if folder is None:
        raise SourceUnavailableError(absent(spec.data))
    found = read_folder(spec, folder, f"datasets/{spec.data.folder}")
    if found.revision is None:
        found.max_size = spec.data.mirror_max_size
    return found


def read_folder(spec: TaskSpec, folder: Path, name: str) -> Found:
    """The whole task from ``folder``, which provenance calls ``name``; no sound file is opened yet.

    Raises ``CorruptDataError`` when the table is not what ``info.json`` says it is, and ``LayoutError`` when it lacks
    a column or a split.
    """
    info = read_info(folder)
    file, table = _table(folder, info)
    rows = partial(_rows, spec.data, folder, info, table)
    return Found(
        id=name,
        revision=revision_of(info),
        train=rows(spec.train),
        test=rows(spec.test),
        validation=None if spec.validation is None else rows(spec.validation),
        ood={key: rows(ood.splits) for key, ood in spec.ood.items()},
        ood_ids={key: {"id": name, "revision": revision_of(info)} for key in spec.ood},
        files={f"{name}/{file}": info["metadata"]["sha256"]},
    )


def count_rows(spec: TaskSpec, folder: Path | None) -> dict[str, int]:
    """Rows of train, validation (where it has rows of its own) and test, without opening a sound file."""
    if folder is None:
        return {}
    found = read_folder(spec, folder, folder.name)
    parts = {"train": found.train, "validation": found.validation, "test": found.test}
    return {name: len(rows) for name, rows in parts.items() if rows is not None}


def matches(value: Any, wanted: Sequence[Any]) -> bool:
    """Whether a cell is one of the values; numbers may be written as text, with leading zeros."""
    return plain(value) in {plain(w) for w in wanted}


def plain(value: Any) -> str:
    """A cell as text; a number without leading zeros."""
    text = str(value).strip()
    return (text.lstrip("0") or "0") if text.isdigit() else text


def _table(folder: Path, info: dict[str, Any]) -> tuple[str, dict[str, list]]:
    try:
        entry = info["metadata"]
        file, count, expected = entry["file"], entry["rows"], entry["sha256"]
    except (KeyError, TypeError) as error:
        raise CorruptDataError(
            f"{folder / 'info.json'} does not describe an audio set: it has no 'metadata' with file, rows and sha256. "
            f"{_AGAIN}"
        ) from error
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CorruptDataError(f"{folder / 'info.json'} names {file!r}, which is outside the folder. {_AGAIN}")
    if not path.is_file():
        raise CorruptDataError(f"{path} is missing although info.json names it. {_AGAIN}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise CorruptDataError(
            f"{path} is truncated or changed: its SHA-256 is {found[:12]}..., info.json says {str(expected)[:12]}... "
            f"({len(content)} bytes read). {_AGAIN}"
        )
    try:
        if path.suffix == ".csv":
            frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
            table = {column: frame[column].tolist() for column in frame}
        else:
            table = pq.read_table(pa.BufferReader(content)).to_pydict()
    except Exception as error:  # parsers raise many unrelated classes for a broken file
        raise CorruptDataError(f"{path} is not a readable table ({error}). {_AGAIN}") from error
    length = len(next(iter(table.values()), []))
    if length != count:
        raise CorruptDataError(f"{path} has {length} rows, info.json says {count}. {_AGAIN}")
    return file, table


def _rows(data: DataSet, folder: Path, info: dict[str, Any], table: Mapping[str, list], splits: Splits) -> Clips:
    needed = ["file_name", "sha256", "split", data.label_column, *splits.where]
    needed += [data.speaker_column] if data.speaker_column else []
    missing = [c for c in dict.fromkeys(needed) if c not in table]
    if missing:
        raise LayoutError(f"{folder / info['metadata']['file']} has the columns {list(table)} and lacks {missing}.")
    return join_clips([_one(data, folder, info, table, s, splits.where) for s in split_names(folder, info, splits)])


def _one(data: DataSet, folder: Path, info: dict, table: Mapping[str, list], split: str, where: Mapping) -> Clips:
    rows = [i for i, name in enumerate(table["split"]) if name == split]
    sums = "".join(f"{table['sha256'][i]}  {table['file_name'][i]}\n" for i in rows)
    entry = info["splits"][split]
    if len(rows) != entry["rows"] or hashlib.sha256(sums.encode()).hexdigest() != entry["sha256"]:
        raise CorruptDataError(
            f"{folder}: the {len(rows)} rows of split {split!r} are not the {entry['rows']} rows that info.json sums "
            f"up. {_AGAIN}"
        )
    rows = [i for i in rows if all(matches(table[column][i], wanted) for column, wanted in where.items())]
    clips = [_clip(data, folder, table, i) for i in rows]
    values = [table[data.label_column][i] for i in rows]
    named = info.get("label_names") if data.label_column == info.get("label_column", "label") else None
    if named is not None and all(isinstance(v, str) for v in values):
        # a table in CSV has text only: class names, or ids in digits
        values = [named.index(v) if v in named else int(v) if v.isdigit() else v for v in values]
    return Clips.of(clips, align(values, named, data.label_names, f"{folder.name}, split {split}"))


def _clip(data: DataSet, folder: Path, table: Mapping[str, list], row: int) -> Clip:
    name = PurePosixPath(table["file_name"][row])
    if name.is_absolute() or ".." in name.parts:
        raise CorruptDataError(f"{folder}: file_name {str(name)!r} leads out of the folder. {_AGAIN}")
    path = folder / name
    return Clip(
        name=str(path),
        sha256=table["sha256"][row],
        read=partial(_bytes, path),
        rate=_number(table, "sample_rate", row),
        samples=_number(table, "n_samples", row),
        speaker=plain(table[data.speaker_column][row]) if data.speaker_column else None,
        silence_ok=data.silence_ok,
    )


def _number(table: Mapping[str, list], column: str, row: int) -> int | None:
    value = table[column][row] if column in table else None
    return None if value in (None, "") else int(value)


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise CorruptDataError(f"{path} is missing although the table beside it lists it. {_AGAIN}")
    return path.read_bytes()
