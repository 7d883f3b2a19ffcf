"""What k replicates can show: power of the paired test, the smallest difference it finds, and how many that takes."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

MOST = 100_000
_GRID = (np.arange(4_000) + 0.5) / 4_000


def power(difference: ArrayLike, sd: float, k: int, level: float = 0.95, row_se: float = 0.0, rows: int = 1_000):
    r"""Probability that the interval of k paired replicates leaves zero out when the true difference is ``difference``.

    .. math:: 1 - F_{k-1,\lambda}(t_{k-1}) + F_{k-1,\lambda}(-t_{k-1}), \qquad \lambda = \delta \sqrt k / \sigma

    with F the noncentral t distribution and sigma the standard deviation ``sd`` of the paired differences over
    replicates; zero may be left out on either side. With ``row_se``, the standard error from ``rows`` test rows, the
    mean varies with the rows as well and the interval is that of ``Mean.half_width``. Both are worked out as the mean,
    over the distribution of the estimated spread, of the normal probability given that spread, to about 1e-5.

    ``difference`` in the unit of ``sd``, any shape; returns the same shape. Raises ``ValueError`` for k < 2 or sd <= 0.
    Source: Johnson, Kotz and Balakrishnan 1995, chapter 31.
    """
    if k < 2 or not sd > 0:
        raise ValueError(f"power needs k of at least 2 replicates and a standard deviation above 0, got k={k}, sd={sd}")
    effect = np.abs(np.asarray(difference, dtype=float))[..., None]
    upper, spread = (1 + level) / 2, np.sqrt(stats.chi2.ppf(_GRID, k - 1) / (k - 1))
    error = sd / math.sqrt(k)
    half = np.hypot(stats.t.ppf(upper, k - 1) * error * spread, stats.t.ppf(upper, rows - 1) * row_se)
    total = math.hypot(error, row_se)
    outside = stats.norm.sf((half - effect) / total) + stats.norm.cdf((-half - effect) / total)
    return outside.mean(axis=-1)[()]


def minimal_difference(
    sd: float, k: int, wanted: float = 0.8, level: float = 0.95, row_se: float = 0.0, rows: int = 1_000
) -> float:
    """The smallest true difference that k replicates show with probability ``wanted``, in the unit of ``sd``.

    Raises ``ValueError`` for a ``wanted`` that is not between 1 - ``level`` (which no difference at all has) and 1.
    """
    _check_wanted(wanted, level)
    top = 2 * (sd + row_se)
    while power(top, sd, k, level, row_se, rows) < wanted:
        top *= 2
    return float(optimize.brentq(lambda d: power(d, sd, k, level, row_se, rows) - wanted, 0.0, top, xtol=1e-9 * top))


def replicates_needed(
    difference: float, sd: float, wanted: float = 0.8, level: float = 0.95, row_se: float = 0.0, rows: int = 1_000
) -> int | None:
    """The smallest k that shows ``difference`` with probability ``wanted``; ``None`` if none up to 100,000 does.

    More replicates make their own error smaller, never that of the test rows: below about 2.8 ``row_se`` a
    difference stays out of reach. Raises ``ValueError`` for a ``wanted`` not between 1 - ``level`` and 1.
    """
    _check_wanted(wanted, level)

    def enough(k: int) -> bool:
        return bool(power(difference, sd, k, level, row_se, rows) >= wanted)

    k = bisect_left(range(MOST + 1), True, lo=2, key=enough)
    return k if k <= MOST else None


def _check_wanted(wanted: float, level: float) -> None:
    if not 1 - level < wanted < 1:
        raise ValueError(f"the wanted power must lie between {1 - level:g} and 1, got {wanted:g}")


def sd_interval(differences: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    r"""Interval of the standard deviation of normal differences: what a pilot of k replicates says of the spread.

    .. math:: s \sqrt{(k-1) / \chi^2_{k-1}}

    at the two quantiles of chi-square. Raises ``ValueError`` for fewer than two differences.
    """
    values = np.asarray(differences, dtype=float)
    k = len(values)
    if k < 2:
        raise ValueError(f"a spread needs at least 2 differences, got {k}")
    low, high = spread_factors(k - 1, level)
    return float(low * values.std(ddof=1)), float(high * values.std(ddof=1))


def spread_factors(freedom: int, level: float = 0.95) -> tuple[float, float]:
    """The factors by which a standard deviation estimated with so many degrees of freedom may be off, either way."""
    low, high = np.sqrt(freedom / stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], freedom))
    return float(low), float(high)
