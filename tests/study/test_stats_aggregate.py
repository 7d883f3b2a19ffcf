"""Aggregates over tasks are those of Agarwal et al. 2021, written out here as they define them."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from klnorm_lib.study import stats


@pytest.fixture
def scores():
    """Two arms, 7 replicates x 4 tasks, with ties."""
    return np.random.default_rng(0).normal([[[0.5]], [[0.6]]], 0.1, (2, 7, 4)).round(2)


def test_interquartile_mean_is_the_mean_of_the_middle_half(scores):
    values = sorted(scores[0].ravel())
    cut = math.floor(0.25 * len(values))
    assert cut == 7
    assert stats.interquartile_mean(scores[0]) == pytest.approx(np.mean(values[cut:-cut]))
    assert stats.interquartile_mean([[1.0, 9.0, 2.0], [3.0, 4.0]]) == pytest.approx(np.mean([2, 3, 4]))
    assert stats.interquartile_mean([[5.0]]) == 5.0


def test_performance_profile_is_the_share_of_runs_above(scores):
    thresholds = [0.3, 0.5, scores[0, 0, 0], 0.9]
    runs, tasks = scores[0].shape
    above = [sum(scores[0, i, t] > tau for i in range(runs) for t in range(tasks)) for tau in thresholds]
    expected = np.array(above) / (runs * tasks)
    np.testing.assert_allclose(stats.performance_profile(scores[0], thresholds), expected)
    uneven = stats.performance_profile([[0.0, 1.0], [1.0, 1.0, 1.0, 0.0]], [0.5])
    assert uneven == pytest.approx((1 / 2 + 3 / 4) / 2)  # each task counts the same, however many runs it has


def test_unpaired_probability_of_improvement_is_mann_whitney_by_task(scores):
    one, two = scores
    expected = []
    for x, y in zip(one.T, two.T, strict=True):
        wins = sum(float(a > b) + 0.5 * (a == b) for a in x for b in y)
        assert wins == scipy_stats.mannwhitneyu(x, y).statistic
        expected.append(wins / (len(x) * len(y)))
    assert stats.probability_of_improvement_unpaired(one, two) == pytest.approx(np.mean(expected))
    assert stats.probability_of_improvement_unpaired(one, one) == pytest.approx(0.5)
    assert stats.probability_of_improvement_unpaired([[1.0, 2.0]], [[0.0]]) == 1.0
    with pytest.raises(ValueError, match="same tasks"):
        stats.probability_of_improvement_unpaired(one, two[:, :2])


def test_paired_probability_sees_what_the_unpaired_one_does_not():
    luck = np.arange(10.0)  # of the replicates, shared by both arms
    arm, baseline = luck + 0.1, luck
    assert stats.probability_of_improvement(arm - baseline)[0] == 1.0
    assert stats.probability_of_improvement_unpaired([arm], [baseline]) == pytest.approx(0.55)


def test_paired_probability_by_hand():
    chance, (low, high) = stats.probability_of_improvement([0.1, -0.2, 0.0, 0.3])
    assert chance == pytest.approx(2.5 / 4)
    assert low < chance < high
    exact = scipy_stats.binomtest(8, 10).proportion_ci(0.9, "exact")
    found = stats.probability_of_improvement([1.0] * 8 + [-1.0] * 2, level=0.9)
    assert found[1] == pytest.approx((exact.low, exact.high))
    assert stats.probability_of_improvement([1.0] * 5)[1] == (pytest.approx(0.025 ** (1 / 5)), 1.0)
    assert stats.probability_of_improvement([-1.0] * 5)[1][0] == 0.0
    nothing, interval = stats.probability_of_improvement([])
    assert math.isnan(nothing)
    assert interval == (0.0, 1.0)


def test_stratified_bootstrap_resamples_within_each_task(scores):
    """The same resampling, written out: one index for each replicate of each task, tasks never mixed."""
    matrix = scores[0]
    rng = np.random.default_rng(4)
    found = []
    for _ in range(300):
        index = rng.integers(7, size=(4, 7))
        found.append(np.mean([matrix[index[task], task].mean() for task in range(4)]))
    expected = np.quantile(found, [0.025, 0.975])

    def mean(tasks):
        return float(np.mean([task.mean() for task in tasks]))

    assert stats.stratified(mean, matrix, resamples=300, seed=4) == pytest.approx(tuple(expected))
    constant = np.tile([0.1, 0.5, 0.9, 0.2], (7, 1))  # nothing varies within a task, so nothing does at all
    assert stats.stratified(mean, constant, resamples=50) == pytest.approx((0.425, 0.425))


def test_stratified_bootstrap_of_pairs(scores):
    def lead(x, y):
        return stats.interquartile_mean(x) - stats.interquartile_mean(y)

    shifted = scores[0] + 0.1
    assert stats.stratified(lead, shifted, scores[0], resamples=50) == pytest.approx((0.1, 0.1))
    low, high = stats.stratified(lead, shifted, scores[0], resamples=50, paired=False)
    assert low < 0.1 < high
    uneven = [[0.1, 0.2, 0.3], [0.4, 0.5]]
    low, high = stats.stratified(stats.interquartile_mean, uneven, resamples=50)
    assert 0.1 <= low < high <= 0.5
    with pytest.raises(ValueError, match="replicates in pairs"):
        stats.stratified(lead, uneven, [[0.1, 0.2], [0.4, 0.5]])
    with pytest.raises(ValueError, match="same tasks"):
        stats.stratified(lead, uneven, uneven[:1], paired=False)


@pytest.mark.parametrize("wrong", [np.ones(3), [], [[]], [[[1.0]]]])
def test_scores_that_are_no_tasks(wrong):
    with pytest.raises(ValueError, match="scores need"):
        stats.interquartile_mean(wrong)


@pytest.mark.parametrize(("level", "seed"), [(0.95, 0), (0.8, 7)])
def test_bootstraps_are_the_formulas_of_their_docstrings(level, seed):
    """Written out with the same resamples: index k of k values, 9,999 times, from a generator with that seed."""
    options = {} if seed == 0 else {"level": level, "seed": seed}  # the defaults, or others
    values = np.random.default_rng(2).exponential(1.0, 12)
    means = values[np.random.default_rng(seed).integers(12, size=(9_999, 12))].mean(axis=1)
    tails = [(1 - level) / 2, (1 + level) / 2]
    assert stats.percentile(values, **options) == pytest.approx(tuple(np.quantile(means, tails)), rel=1e-12)
    bias = scipy_stats.norm.ppf((np.mean(means < values.mean()) + np.mean(means <= values.mean())) / 2)
    off = values - values.mean()
    acceleration = (off**3).sum() / (6 * (off**2).sum() ** 1.5)
    z = bias + scipy_stats.norm.ppf(tails)
    at = scipy_stats.norm.cdf(bias + z / (1 - acceleration * z))
    assert stats.bca(values, **options) == pytest.approx(tuple(np.quantile(means, at)), rel=1e-12)


def test_bootstraps_need_two_values():
    for interval in (stats.percentile, stats.bca):
        assert math.isnan(interval([1.0])[0])
        assert interval([0.3, 0.3, 0.3]) == pytest.approx((0.3, 0.3))
        assert interval([0.1 + 0.2, 0.3, 0.3]) == pytest.approx((0.3, 0.3)), "the same but for rounding"
