"""Partial sums of a Fisher information on disk: whole or not at all, and only of the same computation."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FILE = "partial.safetensors"


@dataclass
class Partial:
    """Sums over ``done`` sequences: every element (``sums``), and of each block every tensor (``blocks``).

    ``sizes``: sequences of each block. ``provenance``: what decides the numbers. ``predicted``: predicted tokens.
    """

    provenance: dict[str, Any]
    sums: dict[str, Tensor] = field(default_factory=dict)
    blocks: list[list[float]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    predicted: int = 0
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Sequences so far."""
        return sum(self.sizes)

    def plus(self, mean: Mapping[str, Tensor], predicted: int, size: int) -> Partial:
        """The sums with a block of ``size`` sequences more, of which ``mean`` is the mean; this one stays as it is."""
        more = {name: tensor.mul(size) for name, tensor in mean.items()}
        sums = {name: self.sums[name] + tensor if self.sums else tensor for name, tensor in more.items()}
        block = [float(tensor.double().sum()) for tensor in more.values()]
        grown = {"blocks": [*self.blocks, block], "sizes": [*self.sizes, size]}
        return replace(self, sums=sums, predicted=self.predicted + predicted, **grown)

    def mean(self) -> dict[str, Tensor]:
        """Mean over the sequences: the Fisher information."""
        return {name: tensor / self.done for name, tensor in self.sums.items()}

    def save(self, out: Path) -> None:
        """Write ``out/partial.safetensors``, unless there is nothing to write."""
        from safetensors.torch import save_file

        if not self.done:
            return
        out.mkdir(parents=True, exist_ok=True)
        state = {"told": self.provenance, "sizes": self.sizes, "predicted": self.predicted, "seconds": self.seconds}
        tensors = {**self.sums, "/blocks": torch.tensor(self.blocks, dtype=torch.float64)}
        names = json.dumps(list(self.sums))
        save_file(tensors, out / f"{FILE}.part", metadata={"partial": json.dumps(state), "names": names})
        os.replace(out / f"{FILE}.part", out / FILE)

    @classmethod
    def resume(cls, out: Path, provenance: dict[str, Any]) -> Partial:
        """What ``out`` has of the computation ``provenance``, or an empty one.

        Raises ``ValueError`` for a file that is corrupt, or that belongs to another computation, naming what differs.
        """
        from safetensors import SafetensorError, safe_open

        path = out / FILE
        provenance = json.loads(json.dumps(provenance))
        if not path.exists():
            return cls(provenance)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                saved = json.loads(metadata["partial"])
                sums = {name: file.get_tensor(name) for name in json.loads(metadata["names"])}
                blocks = file.get_tensor("/blocks").tolist()
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is corrupt or truncated ({error}); delete it to start afresh") from error
        was = saved["told"]
        differing = [key for key in sorted({*provenance, *was}) if was.get(key) != provenance.get(key)]
        other = [f"{key} is {was.get(key)!r}, not {provenance.get(key)!r}" for key in differing]
        if other:
            raise ValueError(
                f"{out} has the beginning of another computation: {'; '.join(other)}. Use another --out or delete it"
            )
        return cls(provenance, sums, blocks, saved["sizes"], saved["predicted"], saved["seconds"])
