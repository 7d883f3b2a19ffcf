"""Many tasks at a glance: interquartile mean, performance profile, probability of improvement.

The definitions are those of Agarwal et al. 2021 (the library rliable); scores are (replicates, tasks) arrays, or one
list of scores a task.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from klnorm_lib.study.stats.resample import strata


def interquartile_mean(scores: ArrayLike | Sequence[ArrayLike]) -> float:
    """Mean of the middle half of all scores of all tasks: a quarter, rounded down, is left out at either end."""
    return float(stats.trim_mean(np.concatenate(strata(scores)), 0.25))


def performance_profile(scores: ArrayLike | Sequence[ArrayLike], thresholds: ArrayLike) -> np.ndarray:
    r"""Share of scores above each threshold, averaged over tasks: the run-score distribution.

    .. math:: \hat F(\tau) = \frac1m \sum_{t=1}^m \frac1{k_t} \sum_{i=1}^{k_t} \mathbb 1[x_{t,i} > \tau]

    Shapes: ``thresholds`` (q,) -> (q,), falling from 1 to 0. Scores of different tasks are compared with one
    threshold, so bring them to one scale first.
    """
    at = np.asarray(thresholds, dtype=float)
    return np.mean([(task[:, None] > at).mean(axis=0) for task in strata(scores)], axis=0)


def probability_of_improvement(differences: ArrayLike, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Paired: the share of replicates in which the arm is above the baseline, ties by half, and its exact interval.

    ``differences`` (k,), oriented so that above zero is better. Interval: Clopper and Pearson 1934, which covers at
    least as often as it says; ties make it wider than need be. ``(nan, (0, 1))`` without replicates.
    """
    values = np.asarray(differences, dtype=float)
    k = len(values)
    if k == 0:
        return float("nan"), (0.0, 1.0)
    wins = (values > 0).sum() + (values == 0).sum() / 2
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, wins, k - wins + 1) if wins > 0 else 0.0
    high = stats.beta.isf(tail, wins + 1, k - wins) if wins < k else 1.0
    return float(wins / k), (float(low), float(high))


def probability_of_improvement_unpaired(
    first: ArrayLike | Sequence[ArrayLike], second: ArrayLike | Sequence[ArrayLike]
) -> float:
    r"""The chance that a run of the first arm beats an unrelated run of the second, averaged over tasks.

    .. math:: \frac1m \sum_{t=1}^m \frac1{k_t l_t} \sum_{i,j}
        \bigl(\mathbb 1[x_{t,i} > y_{t,j}] + \tfrac12 \mathbb 1[x_{t,i} = y_{t,j}]\bigr)

    It knows nothing of pairs: two arms that share the spread of their replicates look less different than they are.
    Raises ``ValueError`` for arms with other numbers of tasks. Source: Agarwal et al. 2021.
    """
    one, two = strata(first), strata(second)
    if len(one) != len(two):
        raise ValueError(f"the arms need the same tasks, got {len(one)} and {len(two)}")
    chances = [np.mean((x[:, None] > y).astype(float) + (x[:, None] == y) / 2) for x, y in zip(one, two, strict=True)]
    return float(np.mean(chances))
