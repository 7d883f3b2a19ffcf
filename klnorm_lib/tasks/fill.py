"""Fill a mirror folder from the hub, on a machine that is connected, for one that is not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from . import audio_fill, hub
from .errors import LayoutError, TaskError
from .registry import names, spec
from .rows import to_dataset
from .task_spec import DataSet, TaskSpec


def fill_mirror(
    tasks: str | Iterable[str],
    folder: str | Path,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, str]:
    """Write tasks and their out-of-domain sets to ``folder/datasets/`` in the layout that source "mirror" reads.

    Splits have the hub's names and rows, text columns and ``label`` only, or sound files as they are and a table of
    them; rows with a hidden label are left out; ``info.json`` holds the revision and the SHA-256 of each file. Returns
    set name -> "written", "kept" (already there, unless ``overwrite``) or "skipped: reason" (out-of-domain sets that
    the hub lacks). ``progress`` is called with one line per set. Raises ``SourceUnavailableError`` offline and
    ``TaskError`` for a built-in task.
    """
    tasks = [tasks] if isinstance(tasks, str) else list(tasks)
    wanted: dict[str, tuple[DataSet, list[str], bool]] = {}
    for name in tasks:
        task = spec(name)
        if task.built_in:
            raise TaskError(f"{name!r} ships with the library and needs no mirror.")
        if task.data.hub is None:
            real = [n for n in names() if not spec(n).built_in and spec(n).data.hub]
            raise TaskError(f"no version of {name!r} on the hub is known; the hub has {', '.join(real)}.")
        wanted[task.data.folder] = (task.data, [task.train.hub, task.test.hub], True)
        for ood in task.ood.values():
            wanted.setdefault(ood.data.folder, (ood.data, [ood.splits.hub], False))
    result = {}
    for data, splits, needed in wanted.values():
        target = Path(folder) / "datasets" / data.folder
        result[data.name] = (
            _fill_audio(spec(data.name), target, overwrite)
            if not data.text_columns
            else _fill(data, splits, target, needed, overwrite)
        )
        if progress:
            progress(f"{data.name}: {result[data.name]}")
    return result


def _fill(data: DataSet, splits: list[str], target: Path, needed: bool, overwrite: bool) -> str:
    if (target / "info.json").is_file() and not overwrite:
        return "kept"
    if data.hub is None or None in splits:
        return "skipped: no version on the hub is known"
    target.mkdir(parents=True, exist_ok=True)
    entries: dict[str, Any] = {}
    hidden = 0
    revision = None
    for split in dict.fromkeys(splits):
        try:
            rows, dropped, revision = hub.read_split(data, split)
        except LayoutError as error:
            if needed:
                raise
            target.rmdir()
            return f"skipped: {error}"
        hidden += dropped
        table = to_dataset(rows, data.text_columns, data.label_names).with_format("arrow")[:]
        part = target / f".{split}.parquet.part"
        pq.write_table(table, part, compression="zstd")
        entries[split] = {"rows": len(rows), "sha256": hashlib.sha256(part.read_bytes()).hexdigest()}
        os.replace(part, target / f"{split}.parquet")
    info = {
        "kind": "regression" if data.label_names is None else "classification",
        "columns": [*data.text_columns, "label"],
        "splits": entries,
    }
    _write_info(data, target, info, revision, hidden)
    return "written"


def _fill_audio(task: TaskSpec, target: Path, overwrite: bool) -> str:
    if (target / "info.json").is_file() and not overwrite:
        return "kept"
    info, revision = audio_fill.fill(task, target)
    _write_info(task.data, target, {"kind": "audio-classification", **info}, revision, 0)
    return "written"


def _write_info(data: DataSet, target: Path, info: dict[str, Any], revision: str | None, hidden: int) -> None:
    info = {
        "task": data.name,
        **info,
        "text_columns": list(data.text_columns),
        "label_column": "label",
        "label_names": None if data.label_names is None else list(data.label_names),
        "hub": {"id": data.hub, "config": data.config, "revision": revision, "columns": dict(data.columns)},
        "licence": data.licence,
        "source": data.hub,
        "source_commits": {data.hub: revision},
        "caveats": [*data.caveats, *([f"{hidden} rows with a hidden label are left out."] if hidden else [])],
    }
    # info.json comes last and at once: a folder that has it is complete.
    part = target / ".info.json.part"
    part.write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(part, target / "info.json")
