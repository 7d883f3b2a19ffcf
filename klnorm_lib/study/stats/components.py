"""Where the spread of a score comes from: the labelled subset, the model seed, or the two together."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


def variance_components(scores: ArrayLike, level: float = 0.95, draws: int = 20_000, seed: int = 0) -> pd.DataFrame:
    """Variance of a single run's score, divided into subset, seed and interaction by a crossed design.

    Model: ``y[a, b] = m + s[a] + t[b] + e[a, b]``, all but the constant ``m`` random, independent and of mean zero.
    With A subsets, B seeds and mean squares MS, the estimates are ``var(s) = (MS_subset - MS_interaction) / B``,
    ``var(t) = (MS_seed - MS_interaction) / A`` and ``var(e) = MS_interaction``. They are unbiased and may therefore
    be negative; a share of the sum counts a negative estimate as zero. The intervals of the shares are generalised
    ones, for normal effects: percentiles of the shares when each MS is divided by ``draws`` values of
    chi-square / degrees of freedom.

    ``scores``: shape (subsets, seeds), at least two of each, in any unit. Returns a table with the rows ``subset``,
    ``seed`` and ``interaction`` and the columns ``variance`` (unit squared), ``share``, ``low`` and ``high`` (between
    0 and 1). Runs are repeatable, so the interaction contains no noise of repetition. All runs share their test rows:
    what those rows shift in every run alike is in no component. Raises ``ValueError`` for a table that is too small,
    not finite, or without any spread. Sources: Searle, Casella and McCulloch 1992, Variance Components; Weerahandi
    1993.
    """
    y = np.asarray(scores, dtype=float)
    if y.ndim != 2 or min(y.shape) < 2:
        raise ValueError(f"scores need the shape (subsets, seeds) with at least two of each, got {y.shape}")
    if not np.isfinite(y).all():
        raise ValueError("scores must be finite; a design with runs missing cannot be divided, run those first")
    if np.ptp(y) == 0:
        raise ValueError("all scores are equal: there is no spread to divide")
    subsets, seeds = y.shape
    by_subset, by_seed = y.mean(axis=1, keepdims=True), y.mean(axis=0, keepdims=True)
    freedom = np.array([subsets - 1, seeds - 1, (subsets - 1) * (seeds - 1)])
    squares = np.array(
        [
            seeds * np.square(by_subset - y.mean()).sum(),
            subsets * np.square(by_seed - y.mean()).sum(),
            np.square(y - by_subset - by_seed + y.mean()).sum(),
        ]
    )
    variance = _solve(squares / freedom, subsets, seeds)
    possible = _solve(squares / np.random.default_rng(seed).chisquare(freedom, (draws, 3)), subsets, seeds)
    low, high = np.quantile(_shares(possible), [(1 - level) / 2, (1 + level) / 2], axis=0)
    columns = {"variance": variance, "share": _shares(variance), "low": low, "high": high}
    return pd.DataFrame(columns, index=["subset", "seed", "interaction"])


def _solve(mean_squares: np.ndarray, subsets: int, seeds: int) -> np.ndarray:
    """Components from mean squares, last axis (subset, seed, interaction): the expected mean squares, inverted."""
    subset, seed, interaction = np.moveaxis(mean_squares, -1, 0)
    return np.stack([(subset - interaction) / seeds, (seed - interaction) / subsets, interaction], axis=-1)


def _shares(variance: np.ndarray) -> np.ndarray:
    kept = np.maximum(variance, 0.0)
    return kept / kept.sum(axis=-1, keepdims=True)
