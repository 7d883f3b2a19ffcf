"""Verdicts and corrected p values are wrong no more often than they say, alone and over many tasks."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from klnorm_lib.study import stats
from tests.study.simulated import crossed, records_of_rows

REPEATS = 2000


def most(rate, repeats=REPEATS):
    """The largest share of errors that chance allows at this rate: four Monte Carlo standard errors above it."""
    return rate + 4 * math.sqrt(rate * (1 - rate) / repeats)


@pytest.mark.parametrize("k", [3, 5, 10])
@pytest.mark.parametrize("with_rows", [False, True])
def test_no_difference_is_seldom_called_one(k, with_rows):
    rng = np.random.default_rng(k)
    said = []
    for _ in range(REPEATS):
        table = crossed(rng, k, 60, 0.2, 1.0 if with_rows else 0.0)
        mean = (
            stats.mean_of_rows(table.mean(axis=1), table) if with_rows else stats.mean_of_replicates(table.mean(axis=1))
        )
        said.append(stats.verdict(*mean.interval()))
    assert np.mean(np.isin(said, ["better", "worse"])) < most(0.05)
    assert said.count("better") / REPEATS < most(0.025)
    assert said.count("worse") / REPEATS < most(0.025)


@pytest.mark.parametrize("sd", [0.004, 0.02])
def test_a_difference_as_large_as_the_margin_is_seldom_called_equivalent(sd):
    replicates = np.random.default_rng(0).normal(0.01, sd, (REPEATS, 8))
    intervals = [stats.t_interval(d) for d in replicates]
    inside = np.mean([low > -0.01 and high < 0.01 for low, high in intervals])
    assert inside < most(0.025)
    said = [stats.verdict(low, high, margin=0.01) for low, high in intervals]
    assert said.count("equivalent") / REPEATS <= inside
    if sd == 0.004:
        assert inside > 0.01, "the bound is nearly reached where the replicates tell much"
        near = [stats.verdict(*stats.t_interval(d - 0.01), margin=0.01) == "equivalent" for d in replicates]
        assert np.mean(near) > 0.9


def test_equivalence_is_two_one_sided_tests():
    for seed in range(50):
        values = np.random.default_rng(seed).normal(0.0, 0.01, 6)
        low, high = stats.t_interval(values)
        above = scipy_stats.ttest_1samp(values, -0.01, alternative="greater").pvalue < 0.025
        below = scipy_stats.ttest_1samp(values, 0.01, alternative="less").pvalue < 0.025
        assert (stats.verdict(low, high, margin=0.01) == "equivalent") == (above and below and low <= 0 <= high)


def test_verdict_of_what_should_be_small():
    assert stats.verdict(0.1, 0.2, larger_is_better=False) == "worse"
    assert stats.verdict(-0.2, -0.1, larger_is_better=False) == "better"
    assert stats.verdict(-0.005, 0.005, 0.01, larger_is_better=False) == "equivalent"
    assert stats.verdict(-0.005, 0.01, 0.01) == stats.verdict(-0.005, 0.005) == "cannot tell"
    assert stats.verdict(math.nan, math.nan, 0.01) == "cannot tell"
    assert stats.verdict(0.001, 0.005, 0.01) == "better"  # a small difference that is sure is still one


@pytest.mark.parametrize("row_sd", [0.0, 1.0])
def test_p_value_and_interval_agree(row_sd):
    rng = np.random.default_rng(0)
    for _ in range(100):
        table = crossed(rng, 5, 40, 0.2, row_sd, mean=0.3)
        mean = stats.mean_of_rows(table.mean(axis=1), table)
        p = mean.p_value()
        low, high = mean.interval(1 - p)
        assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-6)
    values = rng.normal(0.3, 1, 6)
    assert stats.mean_of_replicates(values).p_value() == pytest.approx(scipy_stats.ttest_1samp(values, 0).pvalue)
    assert stats.Mean(0.0, 0.1, 4, 0.1, 50).p_value() == 1.0
    assert stats.Mean(1e6, 0.1, 40, 0.1, 500).p_value() <= 1e-12


def test_holm_by_hand():
    found = stats.holm([0.01, 0.04, 0.03, math.nan, 0.005])
    # sorted .005 .01 .03 .04, times 4 3 2 1 = .02 .03 .06 .04, never falling
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, math.nan, 0.02])
    assert stats.holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert stats.holm([]).size == 0
    assert np.isnan(stats.holm([math.nan])).all()


def test_holm_keeps_any_false_alarm_rare():
    rng = np.random.default_rng(0)
    p = rng.random((REPEATS, 20))
    p[:, :5] /= 1e6  # five true differences: the correction must hold for the rest
    alarms = [(stats.holm(row)[5:] < 0.05).any() for row in p]
    assert np.mean(alarms) < most(0.05)
    assert np.mean([(row[5:] < 0.05).any() for row in p]) > 0.4  # what it corrects


def test_false_verdicts_of_compare_from_records(student_alone):
    """End to end: two arms that are equally good, 0/1 rows, replicates and rows crossed, four tasks."""
    rng = np.random.default_rng(5)
    repeats, alarms, families = 60, [], []
    for _ in range(repeats):
        found = stats.compare(records_of_rows(rng, 4, 80, tasks="abcd"), "new", "plain")
        alarms += [c.verdict in ("better", "worse") for c in found]
        families.append(any(c.p_holm < 0.05 for c in found))
    assert np.mean(alarms) < most(0.05, len(alarms))
    assert np.mean(families) < most(0.05, repeats)
