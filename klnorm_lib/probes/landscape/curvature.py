"""The trace of the Hessian, by random probes (Hutchinson 1989), of all parameters or of sets of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.probes.landscape.evaluation import Batches, MeanLoss, at_rest
from klnorm_lib.probes.landscape.sets import ParameterSet


@dataclass(frozen=True)
class Estimate:
    """A mean of independent draws, with its standard error (not a number for a single draw)."""

    draws: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The estimate."""
        return mean(self.draws)

    @property
    def standard_error(self) -> float:
        """Standard deviation of the draws over the root of their number."""
        return stdev(self.draws) / len(self.draws) ** 0.5 if len(self.draws) > 1 else float("nan")


def hessian_trace(
    model: nn.Module,
    batches: Batches,
    sets: Mapping[str, ParameterSet] | None = None,
    loss: Any = None,
    probes: int = 16,
    seed: int = 0,
    scale: Mapping[str, Tensor] | None = None,
) -> dict[str, Estimate]:
    r"""For each set S of parameters the trace of the Hessian H of the mean loss on it, from products with H alone.

    .. math:: \sum_{j \in S} s_j^2 H_{jj} = E\Bigl[\sum_{j \in S} z_j\, (H z)_j\Bigr], \qquad z_j = \pm s_j

    with independent fair signs (Hutchinson 1989; by entries, Bekas, Kokiopoulou and Saad 2007). One product serves all
    sets, so their draws are paired. ``scale``: :math:`s_j` by parameter name, broadcast over the parameter; 1 if
    ``None``. With :func:`filter_scale` the result is the mean second derivative of filter-normalised sections; what
    ``scale`` leaves out is then not moved. ``sets=None``: one set, ``all``. The loss is differentiated twice, so it
    costs a few forward passes for each probe, and the graph of one batch is kept in memory; weights stay as they are.
    Raises ``ValueError`` for fewer than one probe, or a set that names what is not there.
    """
    if probes < 1:
        raise ValueError(f"at least one probe is needed, got {probes}")
    shapes = {n: p.shape for n, p in model.named_parameters() if scale is None or n in scale}
    if sets is None:
        sets = {"all": ParameterSet("all", {n: torch.ones(shape, dtype=torch.bool) for n, shape in shapes.items()})}
    for label, chosen in sets.items():
        unknown = sorted(set(chosen.masks) - set(shapes))
        if unknown:
            raise ValueError(f"set {label!r} contains {unknown[0]!r}, which the model or scale has not")
    # Entries in no set are not probed: they would add nothing but noise.
    masks = {n: [s.masks[n] for s in sets.values() if n in s.masks] for n in shapes}
    union = {n: torch.stack(parts).any(0) for n, parts in masks.items() if parts}
    found = {label: [0.0] * probes for label in sets}
    with at_rest(model, gradients=True):
        loss_at = MeanLoss(model, batches, loss)
        weights = {n: loss_at.own[n].clone().requires_grad_() for n in union}
        for part in loss_at.parts(weights):
            slopes = torch.autograd.grad(part, list(weights.values()), create_graph=True, allow_unused=True)
            used = [(n, w, g) for (n, w), g in zip(weights.items(), slopes, strict=True) if g is not None]
            for probe in range(probes):
                signs = _signs(weights, union, seed + probe, scale)
                along = sum((g * signs[n]).sum() for n, _, g in used)
                if not along.requires_grad:  # the loss is linear in the weights
                    continue
                products = torch.autograd.grad(along, [w for _, w, _ in used], retain_graph=True, allow_unused=True)
                terms = {n: signs[n] * h for (n, _, _), h in zip(used, products, strict=True) if h is not None}
                for label, chosen in sets.items():
                    found[label][probe] += _total(terms, chosen)
    return {label: Estimate(tuple(draws)) for label, draws in found.items()}


def _signs(weights, union: Mapping[str, Tensor], seed: int, scale: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    signs = {}
    for name, w in weights.items():
        fair = torch.randint(2, w.shape, generator=generator, dtype=torch.int8).to(w.device)
        signs[name] = (2 * fair - 1).to(w.dtype) * union[name].to(w.device)
        if scale is not None:
            signs[name] *= scale[name].to(w)
    return signs


def _total(terms: Mapping[str, Tensor], chosen: ParameterSet) -> float:
    inside = ((terms[n], mask) for n, mask in chosen.masks.items() if n in terms)
    return float(sum((t * mask.to(t.device)).double().sum() for t, mask in inside))
