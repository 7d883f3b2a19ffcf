"""The reference: one sequence after the other, each with a backward pass of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.batches import one_row
from klnorm_lib.probes.fisher.losses import Loss
from klnorm_lib.probes.fisher.squares import zeros_for


class Loop:
    """Adds up squared gradients sequence by sequence, in float32 or wider; ``used`` are the parameters that had one."""

    def __init__(self, model: nn.Module, loss: Loss, parameters: Mapping[str, nn.Parameter]) -> None:
        self.model, self.loss, self.parameters = model, loss, dict(parameters)
        self.used: set[str] = set()
        self.sums = zeros_for(parameters)

    def add(self, batch: Mapping[str, Tensor], rows: int) -> Tensor:
        """Add the ``rows`` sequences of ``batch``; returns their losses, (rows,)."""
        return torch.cat([self._one(one_row(batch, i, rows)) for i in range(rows)])

    def slopes(self, row: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one sequence, (1,), and its gradient by each parameter that it depends on."""
        value = self.loss(self.model, row)
        if value.shape != (1,):
            raise ValueError(f"the loss of one sequence must have shape (1,), got {tuple(value.shape)}")
        if not value.requires_grad:
            return value.detach(), {}
        try:
            slopes = torch.autograd.grad(value.sum(), list(self.parameters.values()), allow_unused=True)
        except AssertionError as error:  # of Reformer, whose layers compute theirs in training only
            raise ValueError(f"the model has no gradient in evaluation mode: {error}") from error
        named = zip(self.sums.items(), slopes, strict=True)
        return value.detach(), {name: slope.to(total.dtype) for (name, total), slope in named if slope is not None}

    def clear(self) -> None:
        """Begin sums anew."""
        for total in self.sums.values():
            total.zero_()

    def close(self) -> None:
        """Nothing was attached to the model."""

    def _one(self, row: Mapping[str, Tensor]) -> Tensor:
        value, slopes = self.slopes(row)
        for name, slope in slopes.items():
            self.used.add(name)
            self.sums[name].addcmul_(slope, slope)
        return value
