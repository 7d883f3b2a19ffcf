"""The pilot's numbers by hand, and a choice of tasks that follows from headroom and spread."""

import math

import numpy as np
import pytest

from klnorm_lib.pages import pilot
from tests.study.simulated import detectable_by_hand, record

SCORES = {  # by task and arm, three replicates
    "trec": {"plain": [0.70, 0.72, 0.74], "new": [0.75, 0.74, 0.76]},
    "mrpc": {"plain": [0.68, 0.69, 0.68], "new": [0.60, 0.61, 0.68]},
}


def records(part="tasks"):
    made = [
        record(arm, draw, score, task)
        for task, arms in SCORES.items()
        for arm, found in arms.items()
        for draw, score in enumerate(found)
    ]
    for one in made:
        one.study["part"] = part
    return made


def test_headroom_spread_and_what_could_be_seen():
    found = pilot.table(records(), [("new", "plain")], "tasks", k=10)
    trec = found.loc["trec"]
    change = np.array([0.05, 0.02, 0.02])
    assert (trec["arm"], trec["replicates"], trec["freedom"]) == ("new", 3, 2)
    assert trec["score"] == pytest.approx(0.75)
    assert trec["headroom"] == pytest.approx(0.75 - 138 / 500)
    assert trec["sd"] == pytest.approx(change.std(ddof=1))
    assert trec["detectable"] == pytest.approx(detectable_by_hand(change.std(ddof=1), 10), rel=1e-4)
    needed = next(k for k in range(5, 100) if detectable_by_hand(change.std(ddof=1), k) <= 0.01)
    assert trec["for_a_point"] == needed
    assert list(found["chosen"]) == [True, False]  # mrpc: the best arm hardly beats the constant answer
    assert found.loc["mrpc", "arm"] == "plain"


def test_variances_are_pooled_over_pairs():
    with_third = [*records(), *(record("old", draw, 0.7 - 0.1 * draw, "trec") for draw in range(3))]
    for one in with_third:
        one.study["part"] = "tasks"
    found = pilot.table(with_third, [("new", "plain"), ("old", "plain")], "tasks").loc["trec"]
    variances = np.var([0.05, 0.02, 0.02], ddof=1), np.var(np.array([0.7, 0.6, 0.5]) - [0.70, 0.72, 0.74], ddof=1)
    assert found["sd"] == pytest.approx(np.sqrt(np.mean(variances)))
    assert found["freedom"] == 4


def test_another_part_is_not_the_pilot_and_spread_has_an_interval():
    with pytest.raises(LookupError, match="no setting has finished runs"):
        pilot.table(records("longer"), [("new", "plain")], "tasks")
    low, high = pilot.spread_factors(4)
    assert (low, high) == pytest.approx((math.sqrt(4 / 11.143287), math.sqrt(4 / 0.484419)))  # chi-square's quantiles
