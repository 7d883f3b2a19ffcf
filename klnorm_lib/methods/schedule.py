"""How the weight of a penalty grows over optimiser steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = ("constant", "linear", "cyclical")


@dataclass(frozen=True)
class Schedule:
    r"""beta as a function of the optimiser step.

    ``constant``: beta. ``linear``: :math:`\beta\min(1, s/w)` with w = ``warmup_steps`` (Bowman et al. 2016).
    ``cyclical``: the same rise, constant for another w steps, then again from 0 (Fu et al. 2019).
    Raises ``ValueError`` for an unknown kind, negative or non-finite beta, or warmup_steps below 1.
    """

    kind: str = "constant"
    beta: float = 1e-3
    warmup_steps: int = 100

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown schedule {self.kind!r}; choose one of {', '.join(KINDS)}")
        if not (isinstance(self.beta, (int, float)) and math.isfinite(self.beta) and self.beta >= 0):
            raise ValueError(f"beta must be a finite number >= 0, got {self.beta!r}")
        if self.warmup_steps < 1:
            raise ValueError(f"warmup_steps must be at least 1, got {self.warmup_steps}")

    def beta_at(self, step: Tensor) -> Tensor:
        """beta after ``step`` optimiser steps; a scalar on the device of ``step`` (no synchronisation)."""
        if self.kind == "constant":
            return torch.full((), self.beta, device=step.device)
        if self.kind == "cyclical":
            step = step % (2 * self.warmup_steps)
        return self.beta * (step / self.warmup_steps).clamp(max=1.0)

    def is_over(self, step: Tensor) -> bool:
        """Whether beta stays as it is from ``step`` on."""
        return self.kind == "constant" or (self.kind == "linear" and int(step) >= self.warmup_steps)
