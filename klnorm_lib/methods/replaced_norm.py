"""What a normalisation of the encoder does, measured: statistics, epsilon, scale, shift and the axis of its features.

The norm is run on random numbers; what its class is called and how it stores its weight decide nothing. So a norm that
multiplies by 1 + weight (Gemma), one that subtracts the mean without a shift (Cohere) and one whose features are not
the last axis (ConvNeXt, SqueezeBERT) become the layer that starts as the same function, and others are refused.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from klnorm_lib import functional

_SCALES = (1.0, 0.03, 20.0)  # of the rows of the trial: small ones show the epsilon
_READS = r"\.{name}\.(?:weight(?!\.(?:dtype|device)\b)|bias|eps|variance_epsilon|normalized_shape)\b"


@dataclass(frozen=True)
class MeasuredNorm:
    r""":math:`y = b_0 + \gamma_0\hat x` with ``statistics`` (``layer``, ``rms``; of a GroupNorm ``group``) and ``eps``.

    ``gamma`` and ``bias``: (features,). ``channels_first``: whether the features are axis 1.
    """

    statistics: str
    eps: float
    gamma: Tensor
    bias: Tensor
    channels_first: bool
    groups: int = 1


def measure_norm(norm: nn.Module, owner: nn.Module, name: str, default_eps: float) -> MeasuredNorm:
    """What ``norm``, the child ``name`` of ``owner``, computes, found by trial on random input of its dtype.

    Draws from a generator of its own and runs a copy. Raises ``ValueError`` saying why a layer cannot take its place.
    """
    base = norm
    while "base_layer" in base._modules:  # of peft
        base = base.base_layer
    _check_call(base)
    _check_owner(owner, name)
    trial = _Trial(norm, base)
    weight, bias = base.weight, getattr(base, "bias", None)
    epsilons = _epsilons(base, default_eps)
    if isinstance(base, nn.GroupNorm):
        found = MeasuredNorm("group", base.eps, weight, _or_zeros(bias, weight), True, base.num_groups)
        if trial.agrees(found):
            return found
    for statistics in ("rms", "layer") if bias is None and not isinstance(base, nn.LayerNorm) else ("layer", "rms"):
        for eps in epsilons:
            for scale in (weight, 1 + weight):
                found = MeasuredNorm(statistics, eps, scale, _or_zeros(bias, weight), trial.channels_first)
                if trial.agrees(found):
                    return found
    for statistics in ("layer", "rms"):
        for eps in epsilons:
            found = trial.fit(statistics, eps)
            if trial.agrees(found):
                return found
    raise ValueError("it computes something else than a scale and a shift of the standardised input")


def _check_call(base: nn.Module) -> None:
    parameters = inspect.signature(type(base).forward).parameters
    if len(parameters) != 2:
        raise ValueError(f"its forward takes {', '.join(list(parameters)[1:])}, not the activation alone")


def _check_owner(owner: nn.Module, name: str) -> None:
    """Refuse where the code around the norm computes with its weight, passing a layer by.

    What a constructor does comes before the layer. Code that cannot be recognised is found when it runs, see
    ``KLNormLayer.finish``.
    """
    pattern = re.compile(_READS.format(name=re.escape(name)))
    for cls in type(owner).__mro__:
        if cls.__module__.startswith("torch.nn") or cls is object:
            continue
        for method, function in vars(cls).items():
            if method == "__init__" or not inspect.isfunction(inspect.unwrap(function)):
                continue
            try:
                source = inspect.getsource(inspect.unwrap(function))
            except (OSError, TypeError):
                continue
            if read := pattern.search(source):
                read = read.group().replace(".", " ", 1)
                raise ValueError(f"{cls.__name__} reads{read} itself, past the norm's forward")


def _epsilons(base: nn.Module, default: float) -> list[float]:
    """Candidates, the norm's own first; None, torch's RMSNorm's, is the precision of the dtype."""
    own = getattr(base, "eps", getattr(base, "variance_epsilon", default))
    own = torch.finfo(base.weight.dtype).eps if own is None else own
    others = [v for v in vars(base).values() if isinstance(v, float) and 0 <= v < 0.1]
    return list(dict.fromkeys([own, *others, default, 1e-6, 1e-12, 0.0]))


def _or_zeros(bias: Tensor | None, weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if bias is None else bias


class _Trial:
    """A copy of the norm and what it answers to random input, features last."""

    def __init__(self, norm: nn.Module, base: nn.Module) -> None:
        weight = base.weight
        if weight.is_meta:  # nothing can run: the copy gets weights that tell the candidates apart
            norm = copy.deepcopy(norm).to_empty(device="cpu")
            for index, tensor in enumerate([*norm.parameters(), *norm.buffers()]):
                tensor.data.copy_(torch.linspace(0.5, 1.5, tensor.numel()).view(tensor.shape) * (1 + index))
        else:
            norm = copy.deepcopy(norm)
        self.norm = norm.eval()
        while "base_layer" in norm._modules:
            norm = norm.base_layer
        self.meta, self.weight, self.bias = weight.is_meta, norm.weight, getattr(norm, "bias", None)
        self.answers: list[tuple[Tensor, Tensor]] = []
        reasons = []
        for self.channels_first in (False, True):
            try:
                self.answers = list(self._answers())
                return
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                reasons.append(str(error).splitlines()[0])
        raise ValueError(f"it takes neither (batch, length, features) nor (batch, features, length): {reasons[0]}")

    def _answers(self) -> Iterator[tuple[Tensor, Tensor]]:
        d = self.weight.numel()
        length = 5 if d != 5 else 7
        generator = torch.Generator().manual_seed(0)
        for scale in _SCALES:
            x = scale * (torch.randn(4, length, d, generator=generator) + 0.5)
            x = x.to(device=self.weight.device, dtype=self.weight.dtype)
            given = x.movedim(-1, 1) if self.channels_first else x
            shapes = [given, given.unsqueeze(2)] if self.channels_first else [given]
            for number, shape in enumerate(shapes):
                try:
                    with torch.no_grad(), torch.random.fork_rng(devices=[]):
                        y = self.norm.forward(shape)
                except (RuntimeError, ValueError, IndexError):
                    if number + 1 < len(shapes):
                        continue
                    raise
                if not isinstance(y, Tensor) or y.shape != shape.shape or y.dtype != shape.dtype:
                    raise ValueError("it does not return a tensor of the shape and dtype of its input")
                y = y.reshape(given.shape)
                yield x, y.movedim(1, -1) if self.channels_first else y
                break

    def agrees(self, found: MeasuredNorm) -> bool:
        """Whether the norm's answers are ``found``'s, to the rounding of its dtype."""
        gamma, bias = found.gamma, found.bias
        if self.meta:  # the same formula on the copy's weights
            bias = _or_zeros(self.bias, self.weight)
            gamma = self.weight
        candidates = [gamma, 1 + gamma] if self.meta else [gamma]
        if found.channels_first != self.channels_first:
            return False
        return any(
            all(_close(scale.double() * x_hat + bias.double(), y) for x_hat, y in self._standardised(found))
            for scale in candidates
        )

    def _standardised(self, found: MeasuredNorm) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.answers:
            if found.statistics == "group":
                x = x.double().movedim(-1, 1)
                yield nn.functional.group_norm(x, found.groups, eps=found.eps).movedim(1, -1), y
            else:
                yield functional.standardise(x.double(), found.statistics, found.eps), y

    def fit(self, statistics: str, eps: float) -> MeasuredNorm:
        """Scale and shift by least squares of the answers on the standardised input, feature by feature."""
        d = self.weight.numel()
        found = MeasuredNorm(statistics, eps, self.weight, self.weight, self.channels_first)
        pairs = [(x_hat.reshape(-1, d), y.double().reshape(-1, d)) for x_hat, y in self._standardised(found)]
        x_hat, y = (torch.cat(values) for values in zip(*pairs, strict=True))
        centred = x_hat - x_hat.mean(0)
        gamma = (centred * y).sum(0) / centred.square().sum(0)
        bias = y.mean(0) - gamma * x_hat.mean(0)
        return MeasuredNorm(statistics, eps, gamma.to(self.weight), bias.to(self.weight), self.channels_first)


def _close(expected: Tensor, y: Tensor) -> bool:
    tolerance = 64 * torch.finfo(y.dtype).eps * expected.abs().max().clamp_min(1e-30)
    return bool((expected - y.double()).abs().max() <= tolerance)
