"""Many comparisons at once: Holm's correction."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def holm(p_values: ArrayLike) -> np.ndarray:
    r"""Corrected p values (m,): the chance of any false alarm among all m stays below the level they are tested at.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min\bigl(1,\ (m - j + 1)\, p_{(j)}\bigr)

    with :math:`p_{(1)} \le p_{(2)} \le \dots`. It holds whatever the dependence of the tests. NaN, for a comparison
    that could not be tested, stays NaN and does not count. Source: Holm 1979.
    """
    p = np.asarray(p_values, dtype=float)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected
