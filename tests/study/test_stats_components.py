"""Variance components: right by hand, unbiased, and their intervals cover."""

import math

import numpy as np
import pytest

from klnorm_lib.study.stats import variance_components

SHAPE = (5, 4)
TRUTHS = {
    "all three": (4.0, 1.0, 2.0),
    "no subset": (0.0, 3.0, 1.0),
    "no seed": (2.0, 0.0, 1.0),
    "interaction alone": (0.0, 0.0, 1.0),
}


def simulate(truth, count, seed=0):
    """``count`` tables of scores with known variances of subset, seed and interaction."""
    rng = np.random.default_rng(seed)
    shapes = ((count, SHAPE[0], 1), (count, 1, SHAPE[1]), (count, *SHAPE))
    return 70 + sum(math.sqrt(v) * rng.normal(size=s) for v, s in zip(truth, shapes, strict=True))


def test_a_table_by_hand():
    found = variance_components([[1.0, 2.0], [5.0, 8.0]])
    # row means 1.5 and 6.5, column means 3 and 5, mean 4; residuals all of size 0.5, signs alternating
    mean_squares = 2 * (2.5**2 + 2.5**2), 2 * (1**2 + 1**2), 4 * 0.5**2
    expected = (mean_squares[0] - 1) / 2, (mean_squares[1] - 1) / 2, 1.0
    assert list(found.index) == ["subset", "seed", "interaction"]
    assert found["variance"].to_list() == pytest.approx(expected)
    assert found["share"].to_list() == pytest.approx(np.array(expected) / sum(expected))


@pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS)
def test_estimates_are_unbiased(truth):
    found = np.array([variance_components(y, draws=2)["variance"] for y in simulate(truth, 500)])
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - truth) < 4 * error).all()
    assert (found[:, 2] > 0).all()
    if 0.0 in truth[:2]:  # unbiased at zero means below zero about as often as above
        assert (found[:, truth.index(0.0)] < 0).mean() > 0.3


@pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS)
def test_intervals_of_shares_cover_as_often_as_they_say(truth):
    shares = np.array(truth) / sum(truth)
    tables = [variance_components(y, draws=400, seed=k) for k, y in enumerate(simulate(truth, 200))]
    covered = np.array([(t["low"] <= shares) & (shares <= t["high"]) for t in tables]).mean(axis=0)
    assert (covered > 0.95 - 4 * math.sqrt(0.95 * 0.05 / len(tables))).all(), covered


def test_unit_origin_and_order_do_not_matter():
    y = simulate((4.0, 1.0, 2.0), 1)[0]
    found = variance_components(y)
    np.testing.assert_allclose(variance_components(100 * y + 3)["variance"], 1e4 * found["variance"])
    np.testing.assert_allclose(variance_components(y[::-1, [2, 0, 3, 1]]), found)
    turned = variance_components(y.T).rename({"subset": "seed", "seed": "subset"}).loc[found.index]
    np.testing.assert_allclose(turned[["variance", "share"]], found[["variance", "share"]])


def test_a_negative_estimate_counts_as_nothing():
    y = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    found = variance_components(y)
    assert (found["variance"][["subset", "seed"]] < 0).all()
    assert found["share"].to_list() == [0.0, 0.0, 1.0]


def test_intervals_are_percentiles_of_the_shares_that_the_mean_squares_allow():
    """Written out for a 2 x 2 table with one degree of freedom each, from the values that its seed gives."""
    found = variance_components([[1.0, 2.0], [5.0, 8.0]], level=0.8, seed=4)
    subset, seed, left = np.array([25.0, 4.0, 1.0])[:, None] / np.random.default_rng(4).chisquare(1, (20_000, 3)).T
    parts = np.maximum([(subset - left) / 2, (seed - left) / 2, left], 0)
    low, high = np.quantile(parts / parts.sum(0), [0.1, 0.9], axis=1)
    np.testing.assert_allclose(found["low"], low)
    np.testing.assert_allclose(found["high"], high)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([1.0, 2.0], "shape"),
        ([[1.0, 2.0]], "shape"),
        ([[1.0, np.nan], [2.0, 3.0]], "finite"),
        ([[1.0, 1.0], [1.0, 1.0]], "no spread"),
    ],
)
def test_tables_that_cannot_be_divided(scores, said):
    with pytest.raises(ValueError, match=said):
        variance_components(scores)
