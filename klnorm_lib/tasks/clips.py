"""Rows whose input is a recording: chosen and compared by checksum, decoded only when they are used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import datasets
import numpy as np
import pyarrow as pa

from . import audio, audio_cache
from .errors import CorruptDataError
from .rows import Rows


@dataclass(frozen=True)
class Clip:
    """One sound file: the SHA-256 of its bytes, how to get them, what is declared of it, and who speaks.

    ``if_silent`` ends the error about a silent one, where ``silence_ok`` is not set.
    """

    name: str
    sha256: str
    read: Callable[[], bytes]
    rate: int | None = None
    samples: int | None = None
    speaker: str | None = None
    silence_ok: bool = False
    if_silent: str = ""

    def decode(self) -> tuple[np.ndarray, str]:
        """Samples (float32, mono, 16 kHz) and the checksum of the recording; the bytes are checked first."""
        content = self.read()
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise CorruptDataError(
                f"{self.name} is truncated or changed: its SHA-256 is {found[:12]}..., its table says "
                f"{self.sha256[:12]}... ({len(content)} bytes read). Copy the file again from where the folder came "
                "from."
            )
        declared = (self.rate, self.samples, self.silence_ok)
        checked = "".join(f"-{int(value)}" if value else "-" for value in declared) if any(declared) else ""
        return audio_cache.decoded(
            self.sha256,
            lambda: audio.decode(content, self.name, self.rate, self.samples, self.silence_ok, self.if_silent),
            checked,
        )


@dataclass(frozen=True)
class Clips(Rows):
    """``Rows`` with a ``Clip`` each; in place of a text stands the checksum of the file."""

    clips: list[Clip] = field(default_factory=list)

    @classmethod
    def of(cls, clips: Sequence[Clip], labels: list[int]) -> Clips:
        """Rows from clips and their labels."""
        return cls([(clip.sha256,) for clip in clips], labels, list(clips))

    def take(self, indices: Iterable[int]) -> Clips:
        """The rows at ``indices``, in that order."""
        indices = list(indices)
        return Clips.of([self.clips[i] for i in indices], [self.labels[i] for i in indices])


def join_clips(parts: Sequence[Clips]) -> Clips:
    """All parts, one after another."""
    return Clips.of([c for part in parts for c in part.clips], [y for part in parts for y in part.labels])


def without_speakers(rows: Clips, heard: set[str]) -> tuple[Clips, int]:
    """``rows`` less those of speakers in ``heard``, and how many went."""
    keep = [i for i, clip in enumerate(rows.clips) if clip.speaker not in heard]
    return (rows, 0) if len(keep) == len(rows) else (rows.take(keep), len(rows) - len(keep))


def speakers(rows: Clips) -> set[str]:
    """The speakers that are known by name."""
    return {clip.speaker for clip in rows.clips if clip.speaker is not None}


def decode_all(rows: Clips, label_names: Sequence[str]) -> tuple[datasets.Dataset, str]:
    """A ``Dataset`` with ``audio`` (float32 samples at 16 kHz) and ``label``, and the checksum of its rows.

    The checksum is the SHA-256 of one line per row: the checksum of the recording and the label.
    """
    digest = hashlib.sha256()
    waves = []
    for clip, label in zip(rows.clips, rows.labels, strict=True):
        wave, recorded = clip.decode()
        waves.append(wave)
        digest.update(f"{recorded} {label}\n".encode())
    ends = np.cumsum([0, *map(len, waves)])
    values = np.concatenate(waves) if waves else np.zeros(0, np.float32)
    features = datasets.Features(
        {
            "audio": datasets.Sequence(datasets.Value("float32")),
            "label": datasets.ClassLabel(names=list(label_names)),
        }
    )
    table = pa.table(
        {
            "audio": pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values, pa.float32())),
            "label": pa.array(rows.labels, pa.int64()),
        }
    )
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features)), digest.hexdigest()
