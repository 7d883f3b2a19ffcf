"""The second implementation: ``torch.func``, a gradient mapped over the sequences of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from klnorm_lib.probes.fisher.losses import Loss
from klnorm_lib.probes.fisher.squares import zeros_for

CHUNK_BYTES = 2**28  # of gradients kept at once, at least one sequence's


class Func:
    """Adds up squares of ``vmap(grad(loss))``; keeps as many gradients at once as fit into 256 MiB, but at least one.

    Attention is eager meanwhile: the fused one has no rule for vmap.
    """

    def __init__(self, model: nn.Module, loss: Loss, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self.sums = zeros_for(parameters)
        self._module = _WithLoss(model, loss)
        inside = {id(p): n for n, p in self._module.named_parameters()}
        self._inside = {name: inside[id(p)] for name, p in parameters.items()}
        bytes_each = sum(p.numel() * max(4, p.element_size()) for p in parameters.values())
        self._chunk = max(1, CHUNK_BYTES // max(1, bytes_each))

    def add(self, batch: Mapping[str, Any], rows: int) -> Tensor:
        """Add the ``rows`` sequences of ``batch``; returns their losses, (rows,)."""
        tensors = {k: v for k, v in batch.items() if isinstance(v, Tensor) and v.dim()}
        others = {k: v for k, v in batch.items() if k not in tensors}
        values = {self._inside[n]: p.detach() for n, p in self.parameters.items()}

        def loss_of_one(values: dict[str, Tensor], row: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            row = {k: v.unsqueeze(0) for k, v in row.items()} | others
            with _NoRequests():
                loss = torch.func.functional_call(self._module, values, (row,))
            if loss.shape != (1,):
                raise ValueError(f"the loss of one sequence must have shape (1,), got {tuple(loss.shape)}")
            return loss.squeeze(0), loss.squeeze(0).detach()

        slopes_of = torch.func.vmap(torch.func.grad(loss_of_one, has_aux=True), in_dims=(None, 0))
        losses = []
        # Outside of the map nothing is to be differentiated; other parameters may require it.
        with torch.no_grad(), eager_attention(self._module.model):
            for begin in range(0, rows, self._chunk):
                slopes, loss = slopes_of(values, {k: v[begin : begin + self._chunk] for k, v in tensors.items()})
                for name, total in self.sums.items():
                    total.add_(slopes.pop(self._inside[name]).to(total.dtype).square().sum(0))
                losses.append(loss)
        return torch.cat(losses)

    def clear(self) -> None:
        """Begin sums anew."""
        for total in self.sums.values():
            total.zero_()

    def close(self) -> None:
        """Nothing was attached to the model."""


class _WithLoss(nn.Module):
    """A model and its loss as one module, which is what ``functional_call`` needs."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        return self.loss(self.model, batch)


class _NoRequests(TorchFunctionMode):
    """Passes requests for a gradient by, as checkpointing makes at the embeddings: inside of a map they are errors."""

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        return args[0] if func is Tensor.requires_grad_ else func(*args, **(kwargs or {}))


@contextmanager
def eager_attention(model: nn.Module) -> Iterator[None]:
    """Attention written out in matrix products, for the transformers models inside of ``model``.

    Its mask is always made: to leave it out where nothing is padded, transformers would look at the mask's values,
    which vmap forbids.
    """
    from transformers import masking_utils

    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    before = [(c, c._attn_implementation) for c in configs.values() if hasattr(c, "_attn_implementation")]
    masks = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS
    mask = masks["eager"]
    try:
        masks["eager"] = lambda **given: mask(**given | {"allow_is_bidirectional_skip": False})
        for config, _ in before:
            config._attn_implementation = "eager"
        yield
    finally:
        masks["eager"] = mask
        for config, implementation in before:
            config._attn_implementation = implementation
