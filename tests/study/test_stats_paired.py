"""Paired differences, Student's interval by hand, and verdicts."""

import math

import numpy as np
import pytest

from klnorm_lib.study import stats


def test_t_interval_by_hand():
    differences = np.array([0.1, 0.2, 0.3, 0.2])
    half = 3.182446 * differences.std(ddof=1) / math.sqrt(4)
    assert stats.t_interval(differences) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)
    with pytest.raises(ValueError, match="at least 2"):
        stats.t_interval(np.array([0.1]))


@pytest.mark.parametrize("value", [0.0, 0.1, -0.3])
def test_equal_differences_allow_no_verdict(value):
    interval = stats.t_interval(np.full(4, value))
    assert np.isnan(interval).all()
    assert stats.verdict(*interval) == stats.verdict(*interval, margin=1.0) == "cannot tell"
    first = {(i, i): 0.5 + value for i in range(4)}
    second = {(i, i): 0.5 for i in range(4)}
    assert stats.verdict(*stats.t_interval(stats.differences(first, second))) == "cannot tell"


def test_differences_use_shared_seeds_only():
    first, second = {(0, 0): 0.9, (1, 1): 0.8, (2, 2): 0.1}, {(1, 1): 0.5, (0, 0): 0.7}
    assert stats.differences(first, second) == pytest.approx([0.2, 0.3])


def test_verdict():
    assert stats.verdict(0.01, 1.0) == "better"
    assert stats.verdict(-1.0, -0.01) == "worse"
    assert stats.verdict(-1.0, 1.0) == stats.verdict(0.0, 1.0) == "cannot tell"
