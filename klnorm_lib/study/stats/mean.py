"""The mean difference and its two errors: that of the replicates, and that of the test rows which all of them share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize
from scipy.special import stdtr, stdtrit  # what scipy.stats.t computes with, without its checks of shapes

ROUNDING = 1e-12  # differences that vary by less are the same number, written with rounding errors


@dataclass(frozen=True)
class Mean:
    """A mean with the standard error from replicates and that from test rows, each with its degrees of freedom."""

    value: float
    seed_se: float
    seed_df: int
    row_se: float = 0.0
    row_df: int = 1

    @property
    def has_spread(self) -> bool:
        """Whether anything varied, so that an interval can be given."""
        return self.seed_df > 0 and self.seed_se**2 + self.row_se**2 > 0

    def half_width(self, level: float = 0.95) -> float:
        r"""Half of the interval's width: each error with Student's quantile of its own, joined by squares.

        .. math:: h^2 = t_{k-1}^2\,\mathrm{se}_\mathrm{seed}^2 + t_{n-1}^2\,\mathrm{se}_\mathrm{row}^2

        It is never narrower than the interval without row error. Satterthwaite's single number of degrees of freedom
        is the usual alternative; it grows when a second error is added, and with k of 2 to 5 the intervals then cover
        too little (``tests/study/test_stats_coverage.py`` measures both). NaN when nothing varied or k < 2.
        Source: Zou and Donner 2008 (recovery of variance estimates); Howe 1974.
        """
        if not self.has_spread:
            return math.nan
        upper = (1 + level) / 2
        seeds = stdtrit(self.seed_df, upper) * self.seed_se
        return float(math.hypot(seeds, stdtrit(self.row_df, upper) * self.row_se))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The value minus and plus the half width."""
        half = self.half_width(level)
        return self.value - half, self.value + half

    def p_value(self) -> float:
        """One minus the level at which the interval's end touches zero: small when zero is far outside; two-sided."""
        if not self.has_spread:
            return math.nan
        if self.row_se == 0:
            return float(2 * stdtr(self.seed_df, -abs(self.value) / self.seed_se))
        if self.value == 0:
            return 1.0

        def beyond(log_p: float) -> float:
            tail = math.exp(log_p) / 2
            seeds = stdtrit(self.seed_df, tail) * self.seed_se
            return math.hypot(seeds, stdtrit(self.row_df, tail) * self.row_se) - abs(self.value)

        lowest = math.log(1e-12)
        return 1e-12 if beyond(lowest) < 0 else math.exp(optimize.brentq(beyond, lowest, 0.0, xtol=1e-10))


def mean_of_replicates(differences: ArrayLike) -> Mean:
    """The mean of paired differences (k,) with the error of the replicates alone: it is for these test rows only."""
    values = np.asarray(differences, dtype=float)
    k = len(values)
    varies = k > 1 and np.ptp(values) > ROUNDING * max(1.0, np.abs(values).max())
    error = values.std(ddof=1) / math.sqrt(k) if varies else 0.0
    return Mean(float(values.mean()) if k else math.nan, float(error), max(k - 1, 0))


def mean_of_rows(differences: ArrayLike, rows: ArrayLike) -> Mean:
    r"""The mean of paired differences with the errors of replicates and of test rows: it speaks for new rows as well.

    Model: ``D[i, j] = m + a[i] + b[j] + e[i, j]``, replicates i and rows j crossed, all effects random and independent.
    The mean of all has the variance ``var(a) / k + var(b) / n + var(e) / (k n)``, which the mean squares give:

    .. math::

        \mathrm{se}_\mathrm{seed}^2 = \frac{MS_\mathrm{replicate}}{kn}, \qquad
        \mathrm{se}_\mathrm{row}^2 = \frac{\max(0,\ MS_\mathrm{row} - MS_\mathrm{residual})}{kn}

    The residual is within both mean squares, of replicates and of rows, and is therefore taken off once.

    ``differences`` (k,): of the metric, they give the value and the error of the replicates; ``rows`` (k, n): arm minus
    baseline for each replicate and test row, as row scores. Raises ``ValueError`` for other shapes or values that are
    not finite. Source: Searle, Casella and McCulloch 1992, Variance Components.
    """
    of_replicates = mean_of_replicates(differences)
    table = np.asarray(rows, dtype=float)
    k = of_replicates.seed_df + 1
    if table.ndim != 2 or len(table) != k or table.shape[1] < 2:
        raise ValueError(
            f"row scores need the shape (replicates, rows), {k} replicates and at least 2 rows, got {table.shape}"
        )
    if not np.isfinite(table).all():
        raise ValueError("row scores must be finite")
    n = table.shape[1]
    if k < 2:
        return of_replicates
    by_replicate, by_row = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    of_rows = k * by_row.var(ddof=1)
    residual = np.square(table - by_replicate - by_row + table.mean()).sum() / ((k - 1) * (n - 1))
    error = math.sqrt(max(0.0, of_rows - residual) / (k * n))
    return Mean(of_replicates.value, of_replicates.seed_se, of_replicates.seed_df, error, n - 1)
