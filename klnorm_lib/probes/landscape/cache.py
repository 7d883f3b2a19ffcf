"""Losses of a section, kept on disk point by point, so that an interrupted grid goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FORMAT = 1  # raise it whenever the same question would get another answer


def fingerprint(model: nn.Module, mean, directions: Sequence[Mapping[str, Tensor]], grid: Sequence[np.ndarray]) -> str:
    """sha256 of all that a section's values depend on; of the loss only its name."""
    digest = hashlib.sha256(json.dumps([FORMAT, type(model).__name__, mean.kind]).encode())
    for part in (mean.own, dict(model.named_buffers()), *directions, *mean.batches):
        for name, value in sorted(part.items()):
            digest.update(f"{name} {_text(value)};".encode())
            if isinstance(value, Tensor):
                digest.update(_bytes(value))
        digest.update(b"|")
    for axis in grid:
        digest.update(axis.tobytes() + b"|")
    return digest.hexdigest()


def _text(value) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _bytes(value: Tensor) -> memoryview:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


class Cache(dict):
    """Index of a grid point to its loss; with a folder, also in ``KEY.jsonl`` there, a line for each point.

    A last line that was cut off is left out. A context manager: the file is open within.
    """

    def __init__(self, folder: str | Path | None, key: str) -> None:
        super().__init__()
        self._path = None if folder is None else Path(folder) / f"{key}.jsonl"
        self._file = None

    def __enter__(self) -> Cache:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            text = self._path.read_text("utf-8") if self._path.exists() else ""
            for line in text.splitlines():
                try:
                    index, value = json.loads(line)
                except (ValueError, TypeError):  # cut off while it was written
                    continue
                self[index] = value
            self._file = self._path.open("a", encoding="utf-8")
            if text and not text.endswith("\n"):
                self._file.write("\n")
        return self

    def __exit__(self, *error) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, indices: Sequence[int], values: Sequence[float]) -> None:
        """Keep the losses of some grid points."""
        for index, value in zip(indices, values, strict=True):
            self[index] = value
            if self._file is not None:
                self._file.write(json.dumps([index, value]) + "\n")
        if self._file is not None:
            self._file.flush()
