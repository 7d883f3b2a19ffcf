"""Modules whose per-sequence gradients follow from their input and from the gradient of their output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.squares import Product, Rows

Contribution = Product | Rows | Tensor  # a tensor (B, *shape) is the gradients themselves


@dataclass(frozen=True)
class Tokens:
    """How the tokens of a module's input belong to sequences: all as many, unless ``offsets`` say otherwise.

    ``dtype``: in which gradients are computed.
    """

    sequences: int
    offsets: list[int] | None = None
    dtype: torch.dtype = torch.float32

    def flat(self, x: Tensor) -> Tensor:
        """(B, ..., D), or (N, D) with offsets, as (N, D)."""
        return x.reshape(-1, x.shape[-1]).to(self.dtype)

    def starts(self, flat: Tensor) -> list[int]:
        """Where each sequence begins in (N, D), and N."""
        each = len(flat) // self.sequences
        return self.offsets or list(range(0, len(flat) + 1, each))

    def owner(self, tokens: int, device: torch.device) -> Tensor:
        """(N,) the sequence of every token."""
        counts = [tokens // self.sequences] * self.sequences
        if self.offsets:
            counts = [b - a for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True)]
        return torch.arange(self.sequences, device=device).repeat_interleave(torch.tensor(counts, device=device))

    def sum(self, flat: Tensor) -> Tensor:
        """(N, D) summed over the tokens of every sequence, (B, D)."""
        if self.offsets is None:
            return flat.view(self.sequences, -1, flat.shape[-1]).sum(1)
        sums = flat.new_zeros(self.sequences, flat.shape[-1])
        return sums.index_add_(0, self.owner(len(flat), flat.device), flat)


Rule = Callable[..., Iterator[tuple[str, Contribution]]]


def rule_for(module: nn.Module) -> Rule | None:
    """How to get the gradients of the module's own parameters, or None for an unsupported module."""
    if "forward" in vars(module):  # replaced on this one module
        return None
    forward = type(module).forward
    for kind, rule in ((nn.Linear, linear), (nn.LayerNorm, layer_norm), (nn.RMSNorm, rms_norm)):
        if isinstance(module, kind) and forward is kind.forward:
            return rule
    if isinstance(module, nn.Embedding):
        return embedding
    name, own = type(module).__name__, list(module._parameters)
    if name == "Conv1D" and own == ["weight", "bias"]:
        return conv1d
    if name.endswith(("RMSNorm", "T5LayerNorm")) and own == ["weight"] and not module._modules and _eps(module):
        return rms_norm
    return None


def linear(module: nn.Module, x: Tensor, delta: Tensor, tokens: Tokens) -> Iterator[tuple[str, Contribution]]:
    """y = x W^T + b: delta^T x, and the sum of delta."""
    x, delta = tokens.flat(x), tokens.flat(delta)
    yield "weight", Product(delta, x, tokens.starts(x))
    if module.bias is not None:
        yield "bias", tokens.sum(delta)


def conv1d(module: nn.Module, x: Tensor, delta: Tensor, tokens: Tokens) -> Iterator[tuple[str, Contribution]]:
    """y = x W + b, as in GPT-2: x^T delta, and the sum of delta."""
    x, delta = tokens.flat(x), tokens.flat(delta)
    yield "weight", Product(x, delta, tokens.starts(x))
    yield "bias", tokens.sum(delta)


def embedding(padding: int | None, ids: Tensor, delta: Tensor, tokens: Tokens) -> Iterator[tuple[str, Contribution]]:
    """Rows of delta, at the ids; none at the padding id, which torch does not train."""
    index, delta = ids.flatten(), tokens.flat(delta)
    owner = tokens.owner(len(index), index.device)
    if padding is not None:
        real = index != padding
        index, delta, owner = index[real], delta[real], owner[real]
    yield "weight", Rows(index, delta, owner)


def layer_norm(module: nn.LayerNorm, x: Tensor, delta: Tensor, tokens: Tokens) -> Iterator[tuple[str, Contribution]]:
    """y = w x̂ + b: the sum of delta x̂, and the sum of delta."""
    wanted, shape = module._parameters, module.normalized_shape
    standard = torch.native_layer_norm(x.to(tokens.dtype), shape, None, None, module.eps)[0]
    yield from _scaled(standard, delta.to(tokens.dtype), tokens, len(shape), wanted)


def rms_norm(module: nn.Module, x: Tensor, delta: Tensor, tokens: Tokens) -> Iterator[tuple[str, Contribution]]:
    """y = w x / rms(x), or (1 + w) x / rms(x): the sum of delta x / rms(x)."""
    over = tuple(range(-module.weight.dim(), 0))
    eps = _eps(module) or torch.finfo(x.dtype).eps
    wide = x.to(tokens.dtype)
    standard = wide * (wide.square().mean(over, keepdim=True) + eps).rsqrt()
    yield from _scaled(standard, delta.to(tokens.dtype), tokens, len(over), module._parameters)


def _scaled(standard: Tensor, delta: Tensor, tokens: Tokens, dims: int, wanted) -> Iterator[tuple[str, Contribution]]:
    shape = delta.shape[-dims:]
    flat = delta.reshape(-1, shape.numel())
    if wanted.get("weight") is not None:
        each = tokens.sum(flat * standard.reshape(flat.shape))
        yield "weight", each.unflatten(1, shape)
    if wanted.get("bias") is not None:
        yield "bias", tokens.sum(flat).unflatten(1, shape)


def _eps(module: nn.Module) -> float | None:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))
