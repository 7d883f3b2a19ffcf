"""Bootstrap intervals: percentile and BCa of the mean in one setting, and stratified by task for many at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from klnorm_lib.study.stats.mean import mean_of_replicates

RESAMPLES = 9_999


def percentile(
    differences: ArrayLike, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of k differences; NaN for k < 2.

    With k = 5 normal differences it covers about 0.84 where it says 0.95, since it takes no account of how badly so few
    of them estimate the spread. Shown beside Student's interval, never for the verdict. Computed by
    ``scipy.stats.bootstrap``. Source: Efron 1979.
    """
    return _bootstrap(differences, "percentile", level, resamples, seed)


def bca(differences: ArrayLike, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    r"""Bias-corrected and accelerated bootstrap interval of the mean of k differences; NaN for k < 2.

    The percentiles that the plain bootstrap takes at :math:`z = \pm 1.96` are taken at
    :math:`\Phi\bigl(z_0 + (z_0 + z) / (1 - a (z_0 + z))\bigr)` with the bias :math:`z_0` (share of resampled means
    below the mean, ties by half, as a normal quantile) and the acceleration :math:`a` (skewness of the jackknife, over
    6). Computed by ``scipy.stats.bootstrap``; the mean itself without spread. Source: Efron 1987.
    """
    return _bootstrap(differences, "BCa", level, resamples, seed)


def _bootstrap(differences: ArrayLike, method: str, level: float, resamples: int, seed: int) -> tuple[float, float]:
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return math.nan, math.nan
    mean = mean_of_replicates(values)
    if not mean.has_spread:  # scipy has NaN and a warning for BCa, where values differ by rounding alone as well
        return mean.value, mean.value
    low, high = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method=method,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(low), float(high)


def stratified(
    statistic: Callable[..., float],
    *matrices: Sequence[ArrayLike],
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
    paired: bool = True,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over several tasks, replicates resampled within each task.

    ``matrices``: for each arm a (replicates, tasks) array or a list of one array of scores a task; ``statistic`` takes
    as many such lists and gives a number, e.g. ``interquartile_mean`` or ``lambda x, y: ...``. The tasks are the
    strata: they are fixed, only replicates are resampled. ``paired``: both arms take the same ones, as they were
    trained; otherwise each arm takes its own (the definition of Agarwal et al. 2021). Raises ``ValueError`` for arms
    with other tasks or, when paired, other numbers of replicates.
    """
    arms = [strata(matrix) for matrix in matrices]
    sizes = [[len(task) for task in arm] for arm in arms]
    if not arms or any(len(s) != len(sizes[0]) for s in sizes) or (paired and any(s != sizes[0] for s in sizes)):
        raise ValueError(f"the arms need the same tasks, and replicates in pairs; their numbers by task: {sizes}")
    rng = np.random.default_rng(seed)
    found = np.empty(resamples)
    for i in range(resamples):
        drawn = [[rng.integers(size, size=size) for size in sizes[0]]]
        drawn = drawn * len(arms) if paired else drawn + [[rng.integers(n, size=n) for n in s] for s in sizes[1:]]
        resampled = [
            [task[index] for task, index in zip(arm, indices, strict=True)]
            for arm, indices in zip(arms, drawn, strict=True)
        ]
        found[i] = statistic(*resampled)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def strata(matrix: ArrayLike | Sequence[ArrayLike]) -> list[np.ndarray]:
    """One array of scores a task, from a (replicates, tasks) array or such a list; raises ``ValueError`` if empty."""
    if isinstance(matrix, np.ndarray):
        if matrix.ndim != 2:
            raise ValueError(f"scores need the shape (replicates, tasks), got {matrix.shape}")
        matrix = list(matrix.T)
    tasks = [np.asarray(task, dtype=float) for task in matrix]
    if not tasks or any(task.ndim != 1 or not len(task) for task in tasks):
        raise ValueError("scores need at least one task, and of each task a list of at least one score")
    return tasks
