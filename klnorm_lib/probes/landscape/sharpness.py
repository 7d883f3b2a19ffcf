"""How far the loss rises within a ball around the weights, at worst and on average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.probes.landscape.curvature import Estimate
from klnorm_lib.probes.landscape.directions import norm
from klnorm_lib.probes.landscape.evaluation import Batches, MeanLoss, at_rest
from klnorm_lib.probes.landscape.sets import ParameterSet


@dataclass(frozen=True)
class Sharpness:
    """Rises of the loss at distance ``radius``: the ``worst`` that was found, and the ``average`` over directions."""

    radius: float
    origin: float
    worst: float
    average: Estimate


def sharpness(
    model: nn.Module,
    batches: Batches,
    radius: float,
    within: ParameterSet | None = None,
    loss: Any = None,
    steps: int = 5,
    draws: int = 8,
    seed: int = 0,
) -> Sharpness:
    r"""The rise of the mean loss when the parameters of a set move by ``radius`` (Euclidean norm, unit of weights),

    .. math::

        S_{\max} = \max_{\lVert e \rVert \le \rho} L(\theta + e) - L(\theta), \qquad
        S_{\text{mean}} = E_{\lVert e \rVert = \rho}\, L(\theta + e) - L(\theta).

    The maximum over a neighbourhood is that of Keskar et al. (2017), with the ball of Foret et al. (2021) in place of
    a box. It is approached from below: first the step along the gradient, which is all that sharpness-aware
    minimisation takes, then ``steps`` - 1 more, each to the point of the sphere that the gradient at the last point
    shows to; the best counts, and 0 if none is above the origin. Where the loss is convex this never goes down. For a
    quadratic loss at its minimum it is the power method, with the limit :math:`\rho^2 \lambda_{\max} / 2`. The mean
    is over ``draws`` uniform directions, each taken with both signs, so that slopes cancel; to second order it is
    :math:`\rho^2\, \mathrm{tr}(H_S) / 2 \lvert S \rvert`.

    ``within=None``: all parameters. Costs ``steps`` + 1 passes forward and backward, and 2 ``draws`` forward. The
    weights are never written to. Raises ``ValueError`` for a radius, steps or draws that are not positive, or an empty
    set.
    """
    if not radius > 0 or steps < 1 or draws < 1:
        raise ValueError(f"radius, steps and draws must be positive, got {radius}, {steps} and {draws}")
    with at_rest(model, gradients=True):
        mean = MeanLoss(model, batches, loss)
        masks = None if within is None else {n: m.to(mean.own[n].device) for n, m in within.masks.items()}
        names = list(mean.own if masks is None else masks)
        if not names:
            raise ValueError("the set is empty, so nothing can move; give another set")
        with torch.no_grad():
            origin = float(mean.at({}))
        worst, place = 0.0, {n: torch.zeros_like(mean.own[n]) for n in names}
        for turn in range(steps + 1):
            value, slope = _slope(mean, place, masks)
            worst = max(worst, value - origin)
            if turn < steps:
                # Where it is level, any direction is as good as another.
                place = _to_sphere(slope if norm(slope) > 0 else _random(mean, names, masks, seed - 1), radius)
        with torch.no_grad():
            rises = []
            for draw in range(draws):
                along = _to_sphere(_random(mean, names, masks, seed + draw), radius)
                sides = [float(mean.at(mean.moved([along], [sign]))) for sign in (1.0, -1.0)]
                rises.append(sum(sides) / 2 - origin)
    return Sharpness(radius, origin, worst, Estimate(tuple(rises)))


def _slope(mean: MeanLoss, place: Mapping[str, Tensor], masks) -> tuple[float, dict[str, Tensor]]:
    weights = {n: (mean.own[n] + e).requires_grad_() for n, e in place.items()}
    total, slope = 0.0, {n: torch.zeros_like(e) for n, e in place.items()}
    for part in mean.parts(weights):
        total += float(part.detach())
        for n, g in zip(weights, torch.autograd.grad(part, list(weights.values()), allow_unused=True), strict=True):
            if g is not None:
                slope[n] += g
    return total, slope if masks is None else {n: g * masks[n] for n, g in slope.items()}


def _random(mean: MeanLoss, names: list[str], masks, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2 * abs(seed) + (seed < 0))
    draws = {n: torch.randn(mean.own[n].shape, generator=generator).to(mean.own[n]) for n in names}
    return draws if masks is None else {n: d * masks[n] for n, d in draws.items()}


def _to_sphere(along: Mapping[str, Tensor], radius: float) -> dict[str, Tensor]:
    long = norm(along)
    return {n: e * (radius / long) for n, e in along.items()}
