"""Paired differences: one for each replicate that two arms have in common, and what they may say.

A *replicate* is a pair (split seed, model seed): the same labelled rows and the same seed for every arm.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Replicate = tuple[int, int]
Scores = dict[Replicate, float]


def common(first: Mapping[Replicate, object], second: Mapping[Replicate, object]) -> list[Replicate]:
    """The replicates that both arms have, in order."""
    return sorted(set(first) & set(second))


def differences(first: Scores, second: Scores) -> np.ndarray:
    """First minus second for every replicate that both arms have, in their order."""
    return np.array([first[replicate] - second[replicate] for replicate in common(first, second)])


def t_interval(differences: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    r"""Student's interval of the mean of k paired differences, for the test rows at hand; k at least 2.

    .. math:: \bar d \pm t_{k-1}\, s / \sqrt k

    NaN twice when all differences are equal: they show no spread to estimate one from, so that :func:`verdict` says
    "cannot tell", as :func:`compare` does. Raises ``ValueError`` for k < 2. Source: Student 1908.
    """
    if len(differences) < 2:
        raise ValueError(f"an interval needs at least 2 paired differences, got {len(differences)}")
    from klnorm_lib.study.stats.mean import mean_of_replicates  # imports scipy, which reading a grid can do without

    return mean_of_replicates(differences).interval(level)


def verdict(low: float, high: float, margin: float | None = None, larger_is_better: bool = True) -> str:
    """What the interval of a difference allows: ``better``, ``worse``, ``equivalent`` or ``cannot tell``.

    Better or worse when the interval leaves zero out; equivalent when it includes zero and lies inside
    (-``margin``, ``margin``), which is two one-sided tests at half of one minus the interval's level; else we cannot
    tell. Without a ``margin`` nothing is called equivalent, and an interval of NaN allows no verdict. Source of the
    two one-sided tests: Schuirmann 1987.
    """
    if not larger_is_better:
        low, high = -high, -low
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "equivalent" if margin is not None and -margin < low and high < margin else "cannot tell"
