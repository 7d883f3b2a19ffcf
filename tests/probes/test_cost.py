"""Times in turns, intervals for a median, and memory that is counted."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

from klnorm_lib.probes import cost


def test_every_round_has_each_arm_once_in_changing_order():
    calls = []
    times = cost.in_turns({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=20, warmup=3, seed=1)
    rounds = [tuple(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == 23
    assert {frozenset(r) for r in rounds} == {frozenset("abc")}
    assert len(set(rounds)) > 3
    assert {len(t) for t in (*times.cpu.values(), *times.wall.values())} == {20}


def test_time_goes_to_the_arm_that_spent_it():
    def busy(n):
        return lambda: sum(i * i for i in range(n))

    times = cost.in_turns({"short": busy(20_000), "long": busy(200_000)}, rounds=15)
    middle, low, high = cost.ratio(times.cpu["long"], times.cpu["short"])
    assert low <= middle <= high
    assert middle > 3


def test_interval_is_that_of_order_statistics():
    values = list(np.random.default_rng(0).permutation(np.arange(1.0, 21.0)))
    middle, low, high = cost.ratio(values, [1.0] * 20)
    assert (middle, low, high) == (10.5, 6.0, 15.0)  # the textbook's: Pr[Bin(20, 1/2) < 6] = 0.0207
    assert cost.ratio([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0] * 6)[1:] == (1.0, 6.0)
    with pytest.raises(ValueError, match="too few"):
        cost.ratio([1.0] * 5, [1.0] * 5)
    with pytest.raises(ValueError, match="paired"):
        cost.ratio([1.0] * 6, [1.0] * 7)


@pytest.mark.parametrize("n", [8, 16, 60])
def test_interval_covers_the_median_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    hits = 0
    for _ in range(2000):
        _, low, high = cost.ratio(list(rng.exponential(size=n)), [1.0] * n)
        hits += low <= np.log(2) <= high
    j = next(j for j in range(n, 0, -1) if binom.cdf(j - 1, n, 0.5) <= 0.025)
    exact = 1 - 2 * binom.cdf(j - 1, n, 0.5)
    assert exact >= 0.95
    assert hits / 2000 == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 2000) ** 0.5)


def test_memory_is_what_torch_allocated():
    x, w = torch.randn(200, 300), torch.randn(300, 400, requires_grad=True)

    def step():
        (x @ w).relu().sum().backward()  # at the end two things are held: the product's gradient and that of w

    assert cost.peak_bytes(step) == pytest.approx(4 * (200 * 400 + 300 * 400), rel=1e-3)
    w.grad = None
    assert cost.peak_bytes(lambda: torch.zeros(1000, 1000)) == 4_000_000
    assert cost.peak_bytes(lambda: None) == 0


def test_nothing_to_time_is_refused():
    with pytest.raises(ValueError, match="at least one step"):
        cost.in_turns({}, 3)
    with pytest.raises(ValueError, match="one round"):
        cost.in_turns({"a": lambda: None}, 0)
