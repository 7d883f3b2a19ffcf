"""The reference: one sequence after the other, each with a backward pass of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.batches import one_row
from klnorm_lib.probes.fisher.losses import Loss


class Loop:
    """Adds up squared gradients sequence by sequence, in float32; ``used`` are the parameters that had one."""

    def __init__(self, model: nn.Module, loss: Loss, parameters: Mapping[str, nn.Parameter]) -> None:
        self.model, self.loss, self.parameters = model, loss, dict(parameters)
        self.used: set[str] = set()
        self.sums = {n: torch.zeros(p.shape, dtype=torch.float32, device=p.device) for n, p in parameters.items()}

    def add(self, batch: Mapping[str, Tensor], rows: int) -> Tensor:
        """Add the ``rows`` sequences of ``batch``; returns their losses, (rows,)."""
        return torch.cat([self._one(one_row(batch, i, rows)) for i in range(rows)])

    def _one(self, row: Mapping[str, Tensor]) -> Tensor:
        value = self.loss(self.model, row)
        if value.shape != (1,):
            raise ValueError(f"the loss of one sequence must have shape (1,), got {tuple(value.shape)}")
        if value.requires_grad:
            slopes = torch.autograd.grad(value.sum(), list(self.parameters.values()), allow_unused=True)
            for (name, total), slope in zip(self.sums.items(), slopes, strict=True):
                if slope is not None:
                    self.used.add(name)
                    total.addcmul_(slope.float(), slope.float())
        return value.detach()

    def close(self) -> None:
        """Nothing was attached to the model."""
