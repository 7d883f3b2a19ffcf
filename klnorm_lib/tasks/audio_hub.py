"""Audio tasks from the Hugging Face hub; the files are taken as they are and decoded by the library itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from . import hub
from .audio_mirror import matches, plain
from .clips import Clip, Clips
from .errors import CorruptDataError, LayoutError, SourceUnavailableError
from .rows import align
from .source import Found
from .task_spec import DataSet, Splits, TaskSpec


def read(spec: TaskSpec) -> Found:
    """The whole task from the hub; raises ``SourceUnavailableError`` offline or when the hub has no version."""
    train, hidden, revision = read_split(spec.data, spec.train)
    test, dropped, _ = read_split(spec.data, spec.test)
    found = Found(id=spec.data.hub, revision=revision, train=train, test=test, unlabelled=hidden + dropped)
    if spec.validation is not None:
        found.validation, dropped, _ = read_split(spec.data, spec.validation)
        found.unlabelled += dropped
    return found


def read_split(data: DataSet, splits: Splits) -> tuple[Clips, int, str]:
    """Rows of one part of a data set, how many have a hidden label and are left out, and the revision."""
    table, rows, labels, revision = select(data, splits)
    where = f"{data.hub}, split {splits.hub}"
    keep = [i for i, label in enumerate(labels) if label != -1]
    rows, shown = [rows[i] for i in keep], [labels[i] for i in keep]
    if not rows:
        raise LayoutError(f"{where} has no labelled row of the classes {', '.join(data.label_names[:12])}.")
    speakers = None if data.speaker_column is None else list(table[_hub_name(data, data.speaker_column)])
    clips = [
        Clip(
            name=f"{where}, row {row}",
            sha256=hashlib.sha256(content(table, row, data)).hexdigest(),
            read=partial(content, table, row, data),
            speaker=None if speakers is None else plain(speakers[row]),
            silence_ok=data.silence_ok,
        )
        for row in rows
    ]
    return Clips.of(clips, align(shown, None, data.label_names, where)), len(labels) - len(keep), revision


def select(data: DataSet, splits: Splits) -> tuple[datasets.Dataset, list[int], list[Any], str]:
    """A split as it lies on the hub, undecoded, the rows that the task wants, their labels, and the revision.

    Labels come as names in the registry's order where the hub has names, as ids otherwise; -1 is a hidden label.
    """
    if data.hub is None or splits.hub is None:
        raise SourceUnavailableError(
            f"no version of {data.name!r} on the hub is known; set KLNORM_MIRROR to a folder that holds "
            f"datasets/{data.folder}."
        )
    table, revision = hub.load_table(data, splits.hub)
    where = f"{data.hub}, split {splits.hub}"
    label = _hub_name(data, "label")
    needed = [_audio_column(data), label, *(_hub_name(data, c) for c in splits.where)]
    needed += [_hub_name(data, data.speaker_column)] if data.speaker_column else []
    missing = [c for c in dict.fromkeys(needed) if c not in table.column_names]
    if missing:
        raise LayoutError(f"{where} has the columns {table.column_names} and lacks {missing}.")
    if not isinstance(table.features[_audio_column(data)], datasets.Audio):
        raise LayoutError(f"{where}: column {_audio_column(data)!r} does not hold sound files.")
    table = table.cast_column(_audio_column(data), datasets.Audio(decode=False))
    rows, labels = _wanted(data, table, label, splits.where)
    return table, rows, labels, revision


def _wanted(data: DataSet, table: datasets.Dataset, label: str, where: Mapping) -> tuple[list[int], list[Any]]:
    feature = table.features[label]
    values = list(table[label])
    if isinstance(feature, datasets.ClassLabel):
        values = [-1 if v in (None, -1) else feature.int2str(v) for v in values]
    columns = {column: list(table[_hub_name(data, column)]) for column in where}
    rows = [i for i in range(len(table)) if all(matches(columns[c][i], wanted) for c, wanted in where.items())]
    if data.hub_labels is not None:
        ours = dict(zip(data.hub_labels, data.label_names, strict=True))
        rows = [i for i in rows if values[i] in ours]
        return rows, [ours[values[i]] for i in rows]
    return rows, [values[i] for i in rows]


def _hub_name(data: DataSet, column: str) -> str:
    return data.columns.get(column, column)


def _audio_column(data: DataSet) -> str:
    return _hub_name(data, "audio")


def content(table: datasets.Dataset, row: int, data: DataSet) -> bytes:
    """The bytes of the sound file in one row of a table from ``select``."""
    sound = table.select_columns([_audio_column(data)])[row][_audio_column(data)]
    if sound.get("bytes") is not None:
        return sound["bytes"]
    if sound.get("path") and Path(sound["path"]).is_file():
        return Path(sound["path"]).read_bytes()
    raise CorruptDataError(f"{data.hub}, row {row}: the hub's row holds no sound file (path {sound.get('path')!r}).")
