"""How far the dropout rates of sites follow from their type."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from klnorm_lib.figures.fisher import by_kind


def share_between(rates: Mapping[str, float]) -> float:
    r"""Share of the variance of the rates that lies between types of site: :math:`\eta^2`, from 0 to 1."""
    values = np.array(list(rates.values()))
    between = sum(len(of) * (np.mean(of) - values.mean()) ** 2 for of in by_kind(rates).values())
    return float(between / ((values - values.mean()) ** 2).sum())


def overlaps(rates: Mapping[str, float]) -> list[tuple[str, str]]:
    """Pairs of types of which neither has all its rates above those of the other."""
    kinds = by_kind(rates)
    return [
        (a, b) for a, b in combinations(kinds, 2) if min(kinds[a]) <= max(kinds[b]) and min(kinds[b]) <= max(kinds[a])
    ]
