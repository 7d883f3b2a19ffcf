"""What paired seeds allow: each arm at its best learning rate, the difference seed by seed, and its interval.

The interval that gives the verdict is Student's; with five pairs a bootstrap covers too little.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from scipy import stats

from klnorm_lib.study import Record

Scores = dict[tuple[int, int], float]


def shared_rates(first: Iterable[Record], second: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """Both arms, cut down to the learning rates that both were tried at, so that neither was tuned harder.

    Raises ``LookupError`` when they share none.
    """
    arms = [list(first), list(second)]
    rates = set.intersection(*({r.run["learning_rate"] for r in arm} for arm in arms))
    if not rates:
        raise LookupError("the two arms were tried at no learning rate in common; run them on the same grid")
    return tuple([r for r in arm if r.run["learning_rate"] in rates] for arm in arms)


def best_rate(records: Iterable[Record]) -> tuple[Scores, float, bool]:
    """Test scores by (split seed, seed) at the learning rate with the best mean validation score, that rate, and
    whether it is the largest that was tried, where a still larger one might have been better.

    Test scores play no part in the choice. ``records``: finished runs of one arm.
    """
    by_rate: dict[float, list[Record]] = defaultdict(list)
    for record in records:
        by_rate[record.run["learning_rate"]].append(record)

    def validation(rate: float) -> float:
        return float(np.mean([r.validation[r.task["primary_metric"]] for r in by_rate[rate]]))

    best = max(by_rate, key=validation)
    scores = {(r.run["split_seed"], r.run["seed"]): r.test[r.task["primary_metric"]] for r in by_rate[best]}
    return scores, best, best == max(by_rate)


def differences(first: Scores, second: Scores) -> np.ndarray:
    """First minus second for every seed that both arms have, in order of the seeds."""
    return np.array([first[seed] - second[seed] for seed in sorted(set(first) & set(second))])


def t_interval(differences: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of paired differences; needs at least two.

    Raises ``ValueError`` for fewer, over which no spread can be estimated.
    """
    if len(differences) < 2:
        raise ValueError(f"an interval needs at least 2 paired differences, got {len(differences)}")
    interval = stats.ttest_1samp(differences, 0.0).confidence_interval(level)
    return float(interval.low), float(interval.high)


def verdict(low: float, high: float) -> str:
    """``better`` or ``worse`` when the interval leaves zero out, else ``cannot tell``."""
    return "better" if low > 0 else "worse" if high < 0 else "cannot tell"
