"""Every interval covers as often as it says, or as rarely as its docstring admits: measured by simulation."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from klnorm_lib.study import rows, stats
from tests.study.simulated import crossed, record, records_of_rows

REPEATS = 1500
ERROR = 4 * math.sqrt(0.95 * 0.05 / REPEATS)  # four Monte Carlo standard errors
RESAMPLED = 600  # repeats where each is a bootstrap


def covered(intervals, truth):
    low, high = np.array(list(intervals)).T
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("k", [2, 5, 10])
def test_t_interval(k):
    replicates = np.random.default_rng(k).normal(0.3, 1.0, (REPEATS, k))
    assert covered(map(stats.t_interval, replicates), 0.3) == pytest.approx(0.95, abs=ERROR)
    theirs = [scipy_stats.ttest_1samp(d, 0).confidence_interval() for d in replicates[:20]]
    np.testing.assert_allclose([stats.t_interval(d) for d in replicates[:20]], theirs)


def satterthwaite(table):
    """The usual alternative, with one estimated number of degrees of freedom for both errors together."""
    k, n = table.shape
    by_replicate, by_row = table.mean(1), table.mean(0)
    ms_replicate, ms_row = n * by_replicate.var(ddof=1), k * by_row.var(ddof=1)
    left = table - by_replicate[:, None] - by_row + table.mean()
    ms_left = (left**2).sum() / ((k - 1) * (n - 1))
    if ms_row < ms_left:
        total, freedom = ms_replicate, k - 1
    else:
        total = ms_replicate + ms_row - ms_left
        parts = ms_replicate**2 / (k - 1) + ms_row**2 / (n - 1) + ms_left**2 / ((k - 1) * (n - 1))
        freedom = total**2 / parts
    half = scipy_stats.t.ppf(0.975, freedom) * math.sqrt(total / (k * n))
    return table.mean() - half, table.mean() + half


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("k", [2, 3, 5, 10])
def test_interval_with_row_error(k, ratio):
    """``ratio``: error of the replicates over error of the rows, both of the mean."""
    n = 100
    rng = np.random.default_rng([k, int(10 * ratio)])
    tables = [crossed(rng, k, n, ratio * math.sqrt(k / n), 1.0, mean=0.2) for _ in range(REPEATS)]
    found = covered((stats.mean_of_rows(t.mean(axis=1), t).interval() for t in tables), 0.2)
    assert found > 0.95 - ERROR
    if k >= 5:  # not by being far too wide; with fewer replicates it is wider than need be
        assert found < 0.95 + ERROR + 0.025
    replicates_only = covered((stats.mean_of_replicates(t.mean(axis=1)).interval() for t in tables), 0.2)
    assert replicates_only < 0.95 + ERROR
    if k >= 5 and ratio <= 1:
        assert replicates_only < 0.93, "without row error the interval should fail here, or this test shows nothing"
    if k == 2 and ratio == 3.0:
        assert covered(map(satterthwaite, tables), 0.2) < 0.91, "the alternative that we did not take"


def test_interval_of_0_1_rows_with_crossed_effects():
    rng = np.random.default_rng(1)
    lift, k, n, replicate_sd = 0.4, 5, 150, 0.1
    truth = scipy_stats.norm.cdf(lift / math.sqrt(3 + replicate_sd**2)) - 0.5
    intervals, alone = [], []
    for _ in range(500):
        made = records_of_rows(rng, k, n, lift, replicate_sd=replicate_sd)
        right = [[r.row_scores["test"] for r in made if r.study["arm"] == arm] for arm in ("new", "plain")]
        tables = [np.array([rows.decode(entry) for entry in arm]) for arm in right]
        table = tables[0] - tables[1]
        intervals.append(stats.mean_of_rows(table.mean(axis=1), table).interval())
        alone.append(stats.t_interval(table.mean(axis=1)))
    error = 4 * math.sqrt(0.95 * 0.05 / 500)
    assert 0.95 - error < covered(intervals, truth) < 0.95 + error
    assert covered(alone, truth) < 0.9


@pytest.mark.parametrize("k", [5, 10])
def test_percentile_bootstrap_covers_as_rarely_as_theory_says(k):
    """The bootstrap's spread is sqrt((k - 1) / k) of the estimated one, and its quantile normal: both too small."""
    replicates = np.random.default_rng(k).normal(0.3, 1.0, (RESAMPLED, k))
    expected = 1 - 2 * scipy_stats.t.sf(1.96 * math.sqrt((k - 1) / k), k - 1)
    found = covered((stats.percentile(d, resamples=999) for d in replicates), 0.3)
    error = 4 * math.sqrt(expected * (1 - expected) / RESAMPLED)
    assert found == pytest.approx(expected, abs=error + 0.015)  # 999 resamples and k values are not quite normal
    assert found < 0.93
    accelerated = covered((stats.bca(d, resamples=999) for d in replicates), 0.3)
    assert accelerated == pytest.approx(found, abs=0.03)


def test_bootstraps_cover_when_replicates_are_many():
    replicates = np.random.default_rng(0).exponential(1.0, (RESAMPLED, 60))
    error = 4 * math.sqrt(0.95 * 0.05 / RESAMPLED)
    for interval, skewed in ((stats.bca, 0.015), (stats.percentile, 0.02)):
        found = covered((interval(d, resamples=999) for d in replicates), 1.0)
        assert found == pytest.approx(0.95, abs=error + skewed)


def test_stratified_bootstrap_of_paired_arms():
    """Pairs keep what both arms share out of the interval; unpaired resampling does not."""
    rng, truth, tasks, k = np.random.default_rng(3), 0.2, 5, 10
    paired, unpaired = [], []

    def lead(x, y):
        return float(np.mean(x) - np.mean(y))

    repeats = 150
    for repeat in range(repeats):
        shared = rng.normal(size=(k, tasks))
        one, two = (shared + 0.5 * rng.normal(size=(k, tasks)) + shift for shift in (truth, 0.0))
        paired.append(stats.stratified(lead, one, two, resamples=150, seed=repeat))
        if repeat < 60:
            unpaired.append(stats.stratified(lead, one, two, resamples=150, seed=repeat, paired=False))
    expected = 1 - 2 * scipy_stats.t.sf(1.96 * math.sqrt((k - 1) / k), tasks * (k - 1))
    assert covered(paired, truth) == pytest.approx(
        expected, abs=4 * math.sqrt(expected * (1 - expected) / repeats) + 0.01
    )
    assert covered(unpaired, truth) > 0.98  # truly .999: three times as wide as need be


@pytest.mark.parametrize("chance", [0.5, 0.8, 0.97])
@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_probability_of_improvement(chance, ties):
    rng = np.random.default_rng(0)
    signs = np.where(rng.random((REPEATS, 10)) < chance, 1.0, -1.0)
    signs[rng.random(signs.shape) < ties] = 0.0
    truth = (1 - ties) * chance + ties / 2
    assert covered((stats.probability_of_improvement(d)[1] for d in signs), truth) > 0.95 - ERROR


def test_sd_interval():
    replicates = np.random.default_rng(0).normal(0.3, 2.0, (REPEATS, 5))
    assert covered(map(stats.sd_interval, replicates), 2.0) == pytest.approx(0.95, abs=ERROR)
    with pytest.raises(ValueError, match="at least 2"):
        stats.sd_interval([1.0])


@pytest.mark.parametrize("sizes", [1, 3])
def test_mean_over_settings(sizes, student_alone):
    """Four tasks; sizes of one task share most of their error, as nested subsets on the same rows do."""
    rng, k, tasks, truth = np.random.default_rng(sizes), 5, 4, 0.02
    intervals = []
    for _ in range(120):
        found = []
        for task in range(tasks):
            own = truth + 0.05 * rng.normal(size=k)
            for size in range(sizes):
                change = own + 0.01 * rng.normal(size=k)
                made = [record("new", d, 0.5 + c, f"t{task}", size) for d, c in enumerate(change)]
                made += [record("plain", d, 0.5, f"t{task}", size) for d in range(k)]
                found += stats.compare(made, "new", "plain")
        mean, low, high = stats.over_settings(found)
        assert mean == pytest.approx(np.mean([c.mean for c in found]))
        intervals.append((low, high))
    assert covered(intervals, truth) > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 120)
    assert np.isnan(stats.over_settings([])).all()
