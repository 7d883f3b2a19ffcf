"""Recordings that a reader's own table names, class by class: which may be quiet, and how loud the loudest is."""

from __future__ import annotations

import hashlib
import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np

from .clips import Clip, Clips
from .errors import CorruptDataError, TaskError

_SAID_ABOVE = 1.3  # full scales; a filter overshoots 1 by less


def own_clips(
    table: Path, files: Sequence[str], labels: Sequence[int], label_names: Sequence[str], quiet: Sequence[str] | str
) -> Clips:
    """Rows of the sound files that ``table`` names, from its folder on; those of the classes ``quiet`` may be silent.

    Raises ``CorruptDataError`` for a file that is not there and ``TaskError`` for a quiet class that is none.
    """
    quiet = (quiet,) if isinstance(quiet, str) else tuple(map(str, quiet))
    unknown = [name for name in quiet if name not in label_names]
    if unknown:
        raise TaskError(
            f"quiet names {', '.join(map(repr, unknown))}, and the labels of {table.name} are "
            f"{', '.join(map(repr, label_names[:20]))}; name labels as they stand in the file."
        )
    names = [label_names[label] for label in labels]
    clips = [_clip(table, file, name, name in quiet) for file, name in zip(files, names, strict=True)]
    return Clips.of(clips, list(labels))


def _clip(table: Path, name: str, label: str, silence_ok: bool) -> Clip:
    path = Path(name).expanduser()
    path = path if path.is_absolute() else table.parent / path
    if not path.is_file():
        raise CorruptDataError(
            f"{table.name} names the sound file {name!r}, and there is no file {str(path)!r}; correct the path (it is "
            f"taken from the folder of {table.name} on) or delete the row."
        )
    return Clip(
        name=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        read=path.read_bytes,
        silence_ok=silence_ok,
        if_silent=f", or, if recordings of {label!r} are meant to be quiet, allow it with quiet={label!r} "
        f"(--quiet {shlex.quote(label)} on the command line)",
    )


def peak(splits: Mapping[str, datasets.Dataset], name: str) -> float:
    """The largest sample of all splits, in full scales; a warning where it lies well above 1, as in files of floats."""
    highest, above = 0.0, 0
    for split in splits.values():
        for row in split.with_format("numpy", columns=["audio"]):
            level = float(np.abs(row["audio"]).max())
            highest, above = max(highest, level), above + (level > _SAID_ABOVE)
    if above:
        warnings.warn(
            f"{name}: {above} of its recordings go above full scale, which is 1 (the loudest up to {highest:.3g}), as "
            "files of floats may; they are used as they are.",
            stacklevel=3,
        )
    return round(highest, 4)
