"""Which learning rate an arm stands at, in records that belong to no study: chosen on validation, never on test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from klnorm_lib.study.record import Record
from klnorm_lib.study.stats.paired import Scores


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
