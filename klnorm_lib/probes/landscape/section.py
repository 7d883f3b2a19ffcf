"""Sections of a loss along one or more directions, on a grid that contains the origin."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from klnorm_lib.probes.landscape.cache import Cache, fingerprint
from klnorm_lib.probes.landscape.evaluation import Batches, MeanLoss, at_rest

METHODS = ("auto", "loop", "vmap")
SMALL = 30_000  # parameters: below, calls cost more than arithmetic, so that many points in one call are faster (CPU)


@dataclass(frozen=True)
class Section:
    """Mean losses on a grid: ``losses[i, j]`` at ``axes[0][i], axes[1][j]``; ``computed`` of them just now."""

    axes: tuple[np.ndarray, ...]
    losses: np.ndarray
    computed: int

    @property
    def origin(self) -> float:
        """The loss at the weights themselves."""
        return float(self.losses[tuple(int(np.flatnonzero(axis == 0)[0]) for axis in self.axes)])

    def rise(self) -> tuple[np.ndarray, np.ndarray]:
        """Radii and the mean rise of the loss above the origin at each, over all grid points of that radius.

        On a line these are the two points at each distance, so that slopes cancel. Radii equal up to rounding count
        as one; the origin is left out.
        """
        radii = np.sqrt(sum(g**2 for g in np.meshgrid(*self.axes, indexing="ij"))).ravel().round(12)
        distinct = np.unique(radii[radii > 0])
        return distinct, np.array([self.losses.ravel()[radii == r].mean() for r in distinct]) - self.origin


def symmetric(*radii: float) -> np.ndarray:
    """A grid axis with 0 in the middle and every radius on both sides; ``ValueError`` for a radius not above 0."""
    sides = np.unique(np.asarray(radii, dtype=float))
    if not len(sides) or not (sides > 0).all() or not np.isfinite(sides).all():
        raise ValueError(f"radii must be positive and finite, got {radii}")
    return np.concatenate([-sides[::-1], [0.0], sides])


def section(
    model: nn.Module,
    batches: Batches,
    directions: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    *axes: Sequence[float],
    loss: Any = None,
    method: str = "auto",
    chunk: int = 8,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Section:
    r"""The mean loss over all sequences on a grid around the model's weights,

    .. math:: L(a, b, \ldots) = \frac{1}{n} \sum_{i=1}^{n} \ell_i(\theta + a\, d_1 + b\, d_2 + \ldots).

    ``directions``: one or several, each parameter name to tensor, as :func:`direction` gives them; ``axes``: for each
    the coordinates, 0 among them. ``loss``: (model, batch) -> (B,); ``None`` for the one of the model's kind. In
    evaluation mode. The weights are never written to, so the model is the same to the bit afterwards, errors included.

    ``method``: ``loop`` takes one grid point after the other, ``vmap`` ``chunk`` of them in one vectorised call, which
    needs that many copies of the moved weights; ``auto`` is vmap for small models, where it is faster. They agree up to
    rounding. ``cache``: a folder in which every value is kept under a fingerprint of weights, batches, directions, grid
    and the loss's name; an interrupted grid goes on from there. ``progress``: a bar on the error stream.

    Raises ``ValueError`` when directions and axes do not fit, when 0 is missing on an axis, or for unknown names.
    """
    directions = [directions] if isinstance(directions, Mapping) else list(directions)
    grid = _checked(model, directions, axes, method, chunk)
    with at_rest(model):
        mean = MeanLoss(model, batches, loss)
        if method == "auto":
            method = "vmap" if sum(p.numel() for p in mean.own.values()) <= SMALL else "loop"
        points = list(itertools.product(*(axis.tolist() for axis in grid)))
        key = fingerprint(model, mean, directions, grid) if cache is not None else ""
        with Cache(cache, key) as cached:
            left = [i for i in range(len(points)) if i not in cached]
            size = chunk if method == "vmap" else 1
            for some in _shown([left[i : i + size] for i in range(0, len(left), size)], progress):
                if method == "vmap":
                    values = _vectorised(mean, directions, [points[i] for i in some])
                else:
                    values = [float(mean.at(mean.moved(directions, points[some[0]])))]
                cached.add(some, values)
            losses = np.array([cached[i] for i in range(len(points))]).reshape([len(axis) for axis in grid])
    return Section(tuple(grid), losses, len(left))


def _checked(model, directions, axes, method, chunk) -> list[np.ndarray]:
    if method not in METHODS or chunk < 1:
        raise ValueError(f"method={method!r}, chunk={chunk}: choose one of {', '.join(METHODS)}, and a positive chunk")
    if not directions or len(directions) != len(axes):
        raise ValueError(f"{len(directions)} directions need as many axes, got {len(axes)}")
    grid = [np.asarray(axis, dtype=float) for axis in axes]
    for k, axis in enumerate(grid):
        if (axis == 0).sum() != 1:
            raise ValueError(f"axis {k} must contain the origin once, 0 exactly: {axis.tolist()}; see symmetric()")
    shapes = {name: p.shape for name, p in model.named_parameters()}
    for k, along in enumerate(directions):
        for name, d in along.items():
            if shapes.get(name) != d.shape:
                raise ValueError(f"direction {k} moves {name!r} of shape {tuple(d.shape)}, which the model has not")
    return grid


def _vectorised(mean: MeanLoss, directions, points) -> list[float]:
    # In float32, since that is how a Python float multiplies a float32 tensor.
    steps = torch.tensor(points, dtype=torch.float32, device=next(iter(mean.own.values())).device)
    return torch.vmap(lambda step: mean.at(mean.moved(directions, step)))(steps).tolist()


def _shown(parts: list, progress: bool):
    """The parts, with a bar on the error stream while they go by."""
    if not progress or not parts:
        yield from parts
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True, force_jupyter=False)
    yield from track(parts, "section", console=console, transient=True, disable=not console.is_terminal)
