"""A difference in one setting, paired by replicate, with its errors and what may be said; and many of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from klnorm_lib.study.stats import multiple
from klnorm_lib.study.stats.paired import Replicate

MARGIN, LEVEL = 0.01, 0.95


@dataclass(frozen=True, eq=False)
class Comparison:
    """Arm minus baseline in one setting: a difference for each replicate that both have, and what they say together.

    Of an ``interaction``, ``baseline`` names the sum that the arm is compared with.

    ``low`` and ``high`` bound the mean difference at ``level``, with the error of the test rows where ``rows`` (their
    number) is given; the ``verdict`` follows from them and ``margin``. ``bca`` and ``bootstrap`` (percentile) are of
    the replicates alone. ``p_improvement`` is the share of replicates in which the arm is better, ties by half.
    ``p_holm`` is corrected over the comparisons that were made together. ``missing`` counts the replicates that only
    one arm has a score for, ``note`` says what else is not there; an interval is NaN where none can be given.
    ``setting`` gives what ``by`` named.
    """

    task: str | None
    size: int | None
    encoder: str | None
    arm: str
    baseline: str
    metric: str
    k: int
    replicates: tuple[Replicate, ...]
    differences: np.ndarray
    scores_arm: np.ndarray
    scores_baseline: np.ndarray
    mean: float
    low: float
    high: float
    seed_se: float
    row_se: float
    bca: tuple[float, float]
    bootstrap: tuple[float, float]
    p_improvement: float
    p_improvement_interval: tuple[float, float]
    p_value: float
    p_holm: float
    verdict: str
    margin: float
    level: float
    larger_is_better: bool
    rows: int | None
    missing: int
    note: str
    setting: Mapping[str, Any]

    @property
    def within_margin(self) -> bool:
        """Whether the interval lies inside the margin; a ``better`` within the margin is sure and small."""
        return -self.margin < self.low and self.high < self.margin

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}] {self.verdict}, {self.k} replicates"


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with Holm's correction over all of them: the family is the list."""
    corrected = multiple.holm([c.p_value for c in comparisons])
    return [replace(c, p_holm=float(p)) for c, p in zip(comparisons, corrected, strict=True)]
