"""Power by formula is power by simulation, and what it says of replicates needed is consistent with itself."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from klnorm_lib.study import stats
from tests.study.simulated import crossed

REPEATS = 2000


def near(share):
    return pytest.approx(share, abs=4 * math.sqrt(max(share * (1 - share), 0.01) / REPEATS))


@pytest.mark.parametrize(("k", "difference"), [(2, 2.0), (3, 1.0), (5, 0.0), (5, 1.0), (10, 1.0), (10, 0.5)])
def test_power_is_the_share_of_simulated_intervals_without_zero(k, difference):
    replicates = np.random.default_rng(k).normal(difference, 1.0, (REPEATS, k))
    said = [stats.verdict(*stats.t_interval(d)) != "cannot tell" for d in replicates]
    assert np.mean(said) == near(stats.power(difference, 1.0, k))


@pytest.mark.parametrize("k", [3, 10])
def test_power_with_row_error_is_that_of_the_interval_with_row_error(k):
    n, rng = 200, np.random.default_rng(k)
    seed_sd, row_sd, noise_sd, difference = 0.3, 2.0, 1.0, 0.6
    tables = [crossed(rng, k, n, seed_sd, row_sd, noise_sd, difference) for _ in range(REPEATS)]
    said = [stats.verdict(*stats.mean_of_rows(t.mean(axis=1), t).interval()) != "cannot tell" for t in tables]
    sd, row_se = math.sqrt(seed_sd**2 + noise_sd**2 / n), row_sd / math.sqrt(n)
    assert np.mean(said) == near(stats.power(difference, sd, k, row_se=row_se, rows=n))


@pytest.mark.parametrize("k", [2, 5, 30])
def test_power_is_the_noncentral_t(k):
    differences = np.linspace(0, 1.2, 5)
    quantile, shift = scipy_stats.t.ppf(0.975, k - 1), differences * math.sqrt(k)
    expected = scipy_stats.nct.sf(quantile, k - 1, shift) + scipy_stats.nct.cdf(-quantile, k - 1, shift)
    np.testing.assert_allclose(stats.power(differences, 1.0, k), expected, atol=2e-5)
    np.testing.assert_allclose(stats.power(-differences, 1.0, k), stats.power(differences, 1.0, k))
    assert stats.power(0.0, 1.0, k) == pytest.approx(0.05, abs=2e-5)
    assert stats.power(1e9, 1.0, k) == 1.0


def test_power_with_a_vanishing_row_error_is_power_without():
    assert stats.power(0.5, 1.0, 6, row_se=1e-12) == pytest.approx(stats.power(0.5, 1.0, 6))
    assert stats.power(0.5, 1.0, 6, row_se=0.2) < stats.power(0.5, 1.0, 6)


@pytest.mark.parametrize("row_se", [0.0, 0.3])
def test_smallest_difference_and_replicates_needed_are_inverses(row_se):
    for k in (2, 5, 12):
        smallest = stats.minimal_difference(1.0, k, row_se=row_se)
        assert stats.power(smallest, 1.0, k, row_se=row_se) == pytest.approx(0.8, abs=1e-6)
        assert stats.replicates_needed(1.0001 * smallest, 1.0, row_se=row_se) == k
        assert stats.replicates_needed(0.9999 * smallest, 1.0, row_se=row_se) == k + 1
    assert stats.minimal_difference(100.0, 5, row_se=100 * row_se) == pytest.approx(
        100 * stats.minimal_difference(1.0, 5, row_se=row_se)
    )


def test_replicates_cannot_make_up_for_few_rows():
    floor = 2.8 * 0.1
    assert stats.replicates_needed(0.9 * floor, 1.0, row_se=0.1) is None
    assert stats.replicates_needed(1.1 * floor, 1.0, row_se=0.1) > 20
    assert stats.replicates_needed(0.0, 1.0) is None
    assert stats.replicates_needed(100.0, 1e-3) == 2


@pytest.mark.parametrize("wrong", [{"k": 1}, {"sd": 0.0}])
def test_what_has_no_power(wrong):
    with pytest.raises(ValueError, match="at least 2 replicates"):
        stats.power(1.0, **({"sd": 1.0, "k": 5} | wrong))
    for wanted in (0.05, 1.0):
        with pytest.raises(ValueError, match="wanted power"):
            stats.minimal_difference(1.0, 5, wanted)
        with pytest.raises(ValueError, match="wanted power"):
            stats.replicates_needed(1.0, 1.0, wanted)
