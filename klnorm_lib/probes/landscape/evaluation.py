"""The mean loss at other weights than the model's own, which are never written to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from klnorm_lib.probes.fisher import losses
from klnorm_lib.probes.fisher.batches import rows_of, to_device
from klnorm_lib.probes.fisher.core import evaluation_mode
from klnorm_lib.probes.fisher.labels import Labels

PREFIX = "model."
Batches = Iterable[Mapping[str, Any]]


class MeanLoss(nn.Module):
    """The mean over all sequences of a loss (model, batch) -> (B,), as a function of the weights.

    ``loss=None`` takes the loss that the model was trained with, by its class. Weights are given by the names of
    ``model.named_parameters()``; those not given are the model's own. Sequences without a label are not counted. Raises
    ``ValueError`` for no batch, for a label out of range, and for a loss that does not give one value a sequence.
    """

    def __init__(self, model: nn.Module, batches: Batches, loss: losses.Loss | None = None) -> None:
        super().__init__()
        self.model = model
        self.kind = losses.kind_of(model) if loss is None else _name(loss)
        self.loss = loss or losses.loss_for(self.kind)
        self.own = {name: p.detach() for name, p in model.named_parameters()}
        device = next(iter(self.own.values())).device
        self.batches, first = [], 0
        labels = Labels(self.kind, model) if loss is None else None
        with evaluation_mode(model):
            for batch in batches:
                rows, batch = rows_of(batch), to_device(batch, device)
                self.batches.append(labels.given(batch, first)[0] if labels else batch)
                first += rows
        self.batches = [batch for batch in self.batches if rows_of(batch)]
        self.rows = [rows_of(batch) for batch in self.batches]
        if not sum(self.rows):
            raise ValueError("there is no sequence in the batches, so there is no loss to look at")

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """The losses of the sequences of one batch, (B,)."""
        return self.loss(self.model, batch)

    def parts(self, weights: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """For every batch the sum of its losses over the number of all sequences; they add up to the mean loss."""
        named = {PREFIX + name: weights.get(name, own) for name, own in self.own.items()}
        for batch, rows in zip(self.batches, self.rows, strict=True):
            values = functional_call(self, named, (batch,))
            if values.shape != (rows,):
                raise ValueError(
                    f"the loss must give one value for each of {rows} sequences, got {tuple(values.shape)}"
                )
            yield values.double().sum() / sum(self.rows)

    def at(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The mean loss at ``weights``, a scalar in double precision."""
        return sum(self.parts(weights))

    def moved(self, directions: list[Mapping[str, Tensor]], steps: Iterable[Any]) -> dict[str, Tensor]:
        """The weights, moved by ``steps`` along ``directions``; where nothing moves they are left out."""
        weights: dict[str, Tensor] = {}
        for along, step in zip(directions, steps, strict=True):
            for name, d in along.items():
                weights[name] = weights.get(name, self.own[name]) + (step * d).to(self.own[name].dtype)
        return weights


def _name(loss: Any) -> str:
    function = loss if hasattr(loss, "__qualname__") else type(loss)
    return f"{function.__module__}.{function.__qualname__}"


@contextmanager
def at_rest(model: nn.Module, gradients: bool = False) -> Iterator[None]:
    """Evaluation mode, and attention that can be differentiated twice if ``gradients``; afterwards all is as it was."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with evaluation_mode(model), torch.set_grad_enabled(gradients):
        if not gradients:
            yield
            return
        with sdpa_kernel(SDPBackend.MATH):
            yield
