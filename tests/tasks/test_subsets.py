"""Subsets: nested, stratified, seeded, disjoint."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klnorm_lib.tasks import TaskError
from klnorm_lib.tasks.subsets import sample, seats, split, strata, validation_rows

CLASS_COUNTS = st.lists(st.integers(12, 60), min_size=2, max_size=5)


def labels_of(counts, seed=0):
    labels = [c for c, n in enumerate(counts) for _ in range(n)]
    return np.random.default_rng(seed).permutation(labels).tolist()


@settings(deadline=None, max_examples=150)
@given(CLASS_COUNTS, st.integers(0, 2**32), st.data())
def test_smaller_subsets_lie_inside_larger_ones(counts, seed, data):
    labels = labels_of(counts)
    least = next(n for n in range(len(labels) + 1) if validation_rows(n) >= len(counts))
    small = data.draw(st.integers(least, len(labels)))
    large = data.draw(st.integers(small, len(labels)))
    train, held = split(labels, small, seed)
    larger_train, larger_held = split(labels, large, seed)
    assert set(train) <= set(larger_train)
    assert set(held) <= set(larger_held)
    assert not set(larger_train) & set(larger_held)
    assert len(train) + len(held) == small
    assert len(held) == validation_rows(small)
    for part in (train, held):
        assert {labels[i] for i in part} == set(range(len(counts)))


@settings(deadline=None, max_examples=50)
@given(st.integers(10, 200), st.integers(0, 1000), st.data())
def test_regression_subsets_are_nested(rows, seed, data):
    scores = np.random.default_rng(seed).uniform(0, 5, rows).round(1).tolist()
    small = data.draw(st.integers(5, rows))
    large = data.draw(st.integers(small, rows))
    parts, larger = split(scores, small, seed, True), split(scores, large, seed, True)
    assert set(parts[0]) <= set(larger[0])
    assert set(parts[1]) <= set(larger[1])
    assert len(larger[0]) + len(larger[1]) == large


@settings(deadline=None, max_examples=50)
@given(CLASS_COUNTS, st.integers(0, 100))
def test_the_whole_data_is_used_once(counts, seed):
    labels = labels_of(counts)
    train, held = split(labels, None, seed)
    assert sorted(train + held) == list(range(len(labels)))


def test_shares_follow_the_classes():
    labels = labels_of([700, 200, 100])
    train, held = split(labels, 500, 3)
    for part in (train, held):
        share = Counter(labels[i] for i in part)
        for label, expected in enumerate((0.7, 0.2, 0.1)):
            assert abs(share[label] - expected * len(part)) <= 1


def test_seats_are_those_of_the_divisor_method():
    # Sainte-Lague by hand for weights 53, 24, 23 and seven seats: quotients 53, 24, 23, 17.7, 10.6, 8, 7.7.
    assert Counter(seats([53, 24, 23], 7, [9, 9, 9], one_each=False)) == {0: 3, 1: 2, 2: 2}


def shuffled(labels, seed):
    """The rows of each class in the order that its own generator gives them."""
    rows = [np.flatnonzero(np.equal(labels, c)) for c in sorted(set(labels))]
    return [np.random.default_rng([seed, c]).permutation(of_class).tolist() for c, of_class in enumerate(rows)]


def test_rows_follow_from_the_seed():
    """Recorded runs rest on it: of 100 rows a class the first 20 are for validation, the others for training."""
    labels = labels_of([100, 100])
    one, two = shuffled(labels, 1)
    train, held = split(labels, 50, 1)
    assert set(train) == {*one[20:40], *two[20:40]}
    assert set(held) == {*one[:5], *two[:5]}
    assert set(train) != set(split(labels, 50, 2)[0])


def test_sample_is_stratified_and_seeded():
    labels = labels_of([900, 100])
    chosen = sample(labels, 100, 5)
    many, few = shuffled(labels, 5)
    assert chosen == sorted(many[:90] + few[:10])
    assert Counter(labels[i] for i in chosen) == {0: 90, 1: 10}
    assert sample(labels, 5000, 5) == list(range(1000))


def test_equal_scores_share_a_stratum():
    groups = strata([0.0] * 10 + [1.0] * 10, regression=True)
    assert len(set(groups[:10].tolist())) == len(set(groups[10:].tolist())) == 1


def test_size_larger_than_the_data():
    with pytest.raises(TaskError, match=r"size 30 is larger than the data: there are 20 rows"):
        split([0, 1] * 10, 30, 0)


def test_size_too_small_names_the_least_that_works():
    labels = labels_of([50, 50, 50])
    with pytest.raises(TaskError, match="ask for at least 13"):
        split(labels, 12, 0)
    assert len(split(labels, 13, 0)[1]) == 3


def test_label_with_a_single_row():
    with pytest.raises(TaskError, match="label 'rare' has a single row"):
        split([0] * 30 + [1], 20, 0, names=("common", "rare"))


def test_one_class_only():
    with pytest.raises(TaskError, match="same label"):
        split([0] * 30, 20, 0)


def test_regression_needs_three_rows():
    with pytest.raises(TaskError, match="at least 3 rows"):
        split([0.1, 0.2, 0.3, 0.4], 2, 0, regression=True)
