"""Stratified subsets that are nested: every smaller one lies inside every larger one, part by part."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np

from .errors import TaskError

_BINS = 5  # strata of a score: quintiles


def validation_rows(size: int) -> int:
    """Rows of validation among ``size``: a fifth, rounded half up, so that both parts only grow with ``size``."""
    return (2 * size + 5) // 10


def least_size(classes: int) -> int:
    """The smallest ``size`` with which train and validation have a row of every class."""
    return next(n for n in range(2 * classes, 10 * classes) if _enough(n, classes))


def _enough(size: int, classes: int) -> bool:
    return min(validation_rows(size), size - validation_rows(size)) >= classes


def strata(labels: Sequence, regression: bool) -> np.ndarray:
    """Stratum of each row: its class, or the quintile of its score (equal scores share a stratum)."""
    values = np.asarray(labels)
    if not regression:
        return values.astype(int)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(values) else []
    return np.digitize(values, edges, right=True)


def seats(weights: Sequence[int], count: int, capacity: Sequence[int], one_each: bool) -> list[int]:
    """Class of each of the first ``count`` seats by the Sainte-Lague rule, at most ``capacity`` a class.

    The next seat goes to the class with the largest w/(2s+1), s its seats so far; with ``one_each`` a class without
    a seat goes first. One sequence serves all sizes, which is why subsets nest; largest remainders would not.
    Source: Balinski and Young 2001, Fair Representation.
    """

    def priority(c: int, taken: int) -> tuple[float, float, int]:
        first = one_each and taken == 0
        return (-math.inf if first else 0.0, -weights[c] / (2 * taken + 1), c)

    heap = [priority(c, 0) for c in range(len(weights)) if weights[c] and capacity[c]]
    heapq.heapify(heap)
    taken = [0] * len(weights)
    sequence: list[int] = []
    while heap and len(sequence) < count:
        c = heapq.heappop(heap)[2]
        sequence.append(c)
        taken[c] += 1
        if taken[c] < capacity[c]:
            heapq.heappush(heap, priority(c, taken[c]))
    return sequence


def sample(labels: Sequence, count: int, seed: int, regression: bool = False) -> list[int]:
    """Indices of a seeded stratified sample of ``count`` rows (all rows when there are fewer), in data order."""
    if len(labels) <= count:
        return list(range(len(labels)))
    _, orders = _shuffled(strata(labels, regression), seed)
    sizes = [len(order) for order in orders]
    chosen = _draw(orders, seats(sizes, count, sizes, one_each=False))
    return sorted(chosen)


def split(
    labels: Sequence, size: int | None, seed: int, regression: bool = False, names: Sequence[str] | None = None
) -> tuple[list[int], list[int]]:
    """Indices of the train and the validation part of a subset of ``size`` rows (``None``: all rows).

    A fifth of the rows is validation. Both parts are prefixes of two orderings that depend on ``seed`` only, so the
    parts of a smaller subset lie inside those of a larger one. For classes each part has a row of every class; rarer
    ones are therefore slightly over-represented in small subsets. Raises ``TaskError`` when ``size`` is larger than
    the data or too small for a row of every class in both parts; ``names`` are class names for the message.
    """
    total = len(labels)
    size = total if size is None else size
    if size > total:
        raise TaskError(
            f"size {size} is larger than the data: there are {total} rows; ask for at most that, or give no size to "
            "use all."
        )
    groups, orders = _shuffled(strata(labels, regression), seed)
    counts = [len(order) for order in orders]
    if not regression:
        _check_each_class(counts, groups, size, names)
    elif size < 3:
        raise TaskError(f"size {size} is too small: at least 3 rows make one of validation and two of train.")
    quota = np.bincount(
        seats(counts, validation_rows(total), [c - 1 for c in counts], one_each=not regression), minlength=len(counts)
    )
    validation = [order[:q] for order, q in zip(orders, quota, strict=True)]
    rest = [order[q:] for order, q in zip(orders, quota, strict=True)]
    n_validation = validation_rows(size)
    return _prefix(rest, size - n_validation, not regression), _prefix(validation, n_validation, not regression)


def split_apart(
    train: Sequence, validation: Sequence, size: int | None, seed: int, names: Sequence[str] | None = None
) -> tuple[list[int], list[int]]:
    """As ``split`` for classes, when validation rows have a pool of their own: indices into both.

    With ``size=None`` both are taken whole. Raises ``TaskError`` when a pool is too small for its part of ``size``.
    """
    if size is None:
        return list(range(len(train))), list(range(len(validation)))
    n_validation = validation_rows(size)
    if n_validation > len(validation) or size - n_validation > len(train):
        most = max(n for n in range(len(train) + len(validation) + 1) if _fits(n, len(train), len(validation)))
        raise TaskError(
            f"size {size} is larger than the data: a fifth of it is drawn from {len(validation)} rows kept for "
            f"validation, the rest from {len(train)} training rows; ask for at most {most}, or give no size."
        )
    pools = [_shuffled(strata(labels, False), seed) for labels in (train, validation)]
    lacking = set(pools[0][0]) ^ set(pools[1][0])
    if lacking:
        label = min(lacking)
        raise TaskError(f"label {names[label] if names else label!r} is only in train or only in validation.")
    _check_each_class([len(order) + 1 for order in pools[1][1]], pools[1][0], size, names)
    return _prefix(pools[0][1], size - n_validation, True), _prefix(pools[1][1], n_validation, True)


def _fits(size: int, train: int, validation: int) -> bool:
    return validation_rows(size) <= validation and size - validation_rows(size) <= train


def _prefix(pools: list[list[int]], count: int, one_each: bool) -> list[int]:
    sizes = [len(pool) for pool in pools]
    return _draw(pools, seats(sizes, count, sizes, one_each=one_each))


def _shuffled(groups: np.ndarray, seed: int) -> tuple[list[int], list[list[int]]]:
    ids = sorted(set(groups.tolist()))
    # One generator per class: the order inside a class does not depend on the other classes.
    orders = [np.random.default_rng([seed, g]).permutation(np.flatnonzero(groups == g)).tolist() for g in ids]
    return ids, orders


def _draw(orders: list[list[int]], sequence: list[int]) -> list[int]:
    iterators = [iter(order) for order in orders]
    return [next(iterators[c]) for c in sequence]


def _check_each_class(counts: list[int], groups: list[int], size: int, names: Sequence[str] | None) -> None:
    if len(counts) < 2:
        raise TaskError("all rows have the same label: nothing can be learned; give data with at least two classes.")
    for count, group in zip(counts, groups, strict=True):
        if count < 2:
            label = names[group] if names else group
            raise TaskError(
                f"label {label!r} has a single row; train and validation need one each: add rows or drop the label."
            )
    if not _enough(size, len(counts)):
        raise TaskError(
            f"size {size} is too small for one row of each of {len(counts)} classes in train and in validation "
            f"(a fifth of size); ask for at least {least_size(len(counts))}."
        )
