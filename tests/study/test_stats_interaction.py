"""The interaction of a 2 x 2 design: right by hand, paired, with the error of the test rows, and covering."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from klnorm_lib.study import StudyError, rows, stats
from tests.study.simulated import holm_by_hand, interval_by_hand, record
from tests.study.test_stats_coverage import covered

ARMS = ("both", "first", "second", "neither")
SIGNS = (1, -1, -1, 1)


def arms_of(scores, **fields):
    """Records of the four arms; ``scores``: by arm, a list by replicate, or (replicates, rows) row scores."""
    made = []
    for arm in ARMS:
        for replicate, score in enumerate(np.asarray(scores[arm], dtype=float)):
            row_scores = {"row_scores": score} if score.ndim else {}
            made.append(record(arm, replicate, float(np.mean(score)), **row_scores, **fields))
    return made


BY_HAND = {
    "both": [0.90, 0.88, 0.95],
    "first": [0.80, 0.84, 0.85],
    "second": [0.82, 0.80, 0.83],
    "neither": [0.75, 0.78, 0.77],
}


def test_a_2_x_2_by_hand():
    (found,) = stats.interaction(arms_of(BY_HAND), *ARMS)
    change = np.array([0.90 - 0.82 - (0.80 - 0.75), 0.88 - 0.80 - (0.84 - 0.78), 0.95 - 0.83 - (0.85 - 0.77)])
    np.testing.assert_allclose(found.differences, change)
    assert found.mean == pytest.approx(0.03)
    student = scipy_stats.ttest_1samp(change, 0)
    assert (found.low, found.high) == pytest.approx(tuple(student.confidence_interval()))
    assert (found.arm, found.baseline, found.k) == ("both", "first + second - neither", 3)
    np.testing.assert_allclose(found.scores_baseline, [0.87, 0.86, 0.91])  # what the sum of the effects predicts
    assert found.p_holm == found.p_value == pytest.approx(student.pvalue)
    assert found.low > 0
    assert found.verdict == "better"


def test_it_is_the_difference_of_two_comparisons_whichever_treatment_comes_first():
    made = arms_of(BY_HAND)
    (beside,), (alone,) = stats.compare(made, "both", "second"), stats.compare(made, "first", "neither")
    (found,), (turned,) = stats.interaction(made, *ARMS), stats.interaction(made, "both", "second", "first", "neither")
    np.testing.assert_allclose(found.differences, beside.differences - alone.differences)
    np.testing.assert_allclose(turned.differences, found.differences)


@pytest.mark.parametrize("metric", ["accuracy", "ece"])
@pytest.mark.parametrize("more", [True, False])
def test_its_verdict_says_whether_both_do_more_than_the_sum(more, metric):
    lift = {"both": 0.3 if more else 0.1, "first": 0.1, "second": 0.1, "neither": 0.0}
    noise = np.random.default_rng(0).normal(0, 0.001, (4, 6))
    made = arms_of({arm: 0.5 + lift[arm] + noise[i] for i, arm in enumerate(ARMS)})
    for one in made:
        one.calibration = {"test": {"ece": 1 - one.test["accuracy"]}, "ood": {}}
    (found,) = stats.interaction(made, *ARMS, metric=metric)
    assert found.verdict == ("better" if more else "worse")
    assert found.mean == pytest.approx((0.1 if more else -0.1) * (1 if metric == "accuracy" else -1), abs=0.003)


def test_effects_that_add_up_are_equivalent():
    noise = np.random.default_rng(1).normal(0, 0.0005, (4, 8))
    lift = {"both": 0.2, "first": 0.05, "second": 0.15, "neither": 0.0}
    (found,) = stats.interaction(arms_of({arm: 0.5 + lift[arm] + noise[i] for i, arm in enumerate(ARMS)}), *ARMS)
    assert found.verdict == "equivalent"
    right = np.arange(40) % 3 > 0
    (alike,) = stats.interaction(arms_of(dict.fromkeys(ARMS, [right] * 3)), *ARMS)
    assert (alike.low, alike.high, alike.verdict) == (0.0, 0.0, "equivalent")
    assert "add up on every test row" in alike.note


def simulated(rng, k, n, effect, row_sd=1.0):
    """Scores (k, n) of the four arms: rows, replicates and noise move each arm for itself, rows also what it adds."""
    shared = rng.normal(size=(k, 1)) + rng.normal(size=(1, n))
    level = {"both": 0.5 + effect, "first": 0.2, "second": 0.3, "neither": 0.0}
    return {
        arm: shared
        + level[arm]
        + row_sd * rng.normal(size=(1, n))
        + 0.1 * rng.normal(size=(k, 1))
        + rng.normal(size=(k, n))
        for arm in ARMS
    }


def test_test_rows_widen_its_interval():
    table = simulated(np.random.default_rng(0), 6, 50, 0.2)
    (found,) = stats.interaction(arms_of(table), *ARMS)
    stored = [np.array([rows.decode(rows.encode("accuracy", run)) for run in table[arm]]) for arm in ARMS]
    by_row = sum(sign * kept for sign, kept in zip(SIGNS, stored, strict=True))
    assert (found.low, found.high) == pytest.approx(interval_by_hand(by_row), abs=1e-4)  # rows are stored in float16
    assert (found.rows, found.note) == (50, "")
    low, high = stats.t_interval(found.differences)
    assert found.row_se > 0
    assert found.high - found.low > high - low


@pytest.mark.parametrize("k", [3, 10])
def test_its_interval_from_records_covers_over_replicates(k, student_alone):
    rng, truth, repeats = np.random.default_rng(k), 0.02, 400
    level = {"both": 0.6 + truth, "first": 0.55, "second": 0.55, "neither": 0.5}
    intervals = []
    for _ in range(repeats):
        shared = rng.normal(size=k)  # what all arms of a replicate have in common cancels
        made = arms_of({arm: level[arm] + shared + 0.03 * rng.normal(size=k) for arm in ARMS})
        (found,) = stats.interaction(made, *ARMS)
        assert np.std(found.differences) < 0.3
        intervals.append((found.low, found.high))
    assert covered(intervals, truth) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / repeats))


@pytest.mark.parametrize("effect", [0.0, 0.4])
def test_its_interval_from_records_covers_over_replicates_and_rows(effect, student_alone):
    rng, repeats = np.random.default_rng(7), 300
    found = [stats.interaction(arms_of(simulated(rng, 5, 60, effect)), *ARMS)[0] for _ in range(repeats)]
    share = covered([(c.low, c.high) for c in found], effect)
    error = 4 * math.sqrt(0.95 * 0.05 / repeats)
    assert 0.95 - error < share < 0.95 + error + 0.025
    alone = covered([stats.t_interval(c.differences) for c in found], effect)
    assert alone < 0.95 - error, "without row error the interval should fail here, or this test shows nothing"
    if effect == 0.0:
        wrong = np.mean([c.verdict in ("better", "worse") for c in found])
        assert wrong == pytest.approx(1 - share)


def test_settings_replicates_and_what_is_missing():
    made = arms_of(BY_HAND) + arms_of(BY_HAND, task="other", size=500) + arms_of(BY_HAND, task="third")
    made = [r for r in made if not (r.task["name"] == "third" and r.study["arm"] == "second")]
    made = [r for r in made if not (r.task["name"] == "t" and r.study["arm"] == "first" and r.run["seed"] == 1)]
    found = stats.interaction(made, *ARMS)
    assert [(c.task, c.size, c.k, c.missing) for c in found] == [("t", 200, 2, 1), ("other", 500, 3, 0)]
    assert "1 of 3 replicates left out" in found[0].note
    np.testing.assert_allclose([c.p_holm for c in found], holm_by_hand([c.p_value for c in found]))
    assert stats.interaction(made[::-1], *ARMS)[-1].differences == pytest.approx(found[0].differences)


def test_what_cannot_be_asked():
    made = arms_of(BY_HAND)
    with pytest.raises(LookupError, match="no setting has finished runs of all of 'both', 'first', 'second', 'plain'"):
        stats.interaction(made, "both", "first", "second", "plain")
    with pytest.raises(ValueError, match="four different arms"):
        stats.interaction(made, "both", "first", "first", "neither")
    twice = arms_of({arm: np.array(scores) / 2 for arm, scores in BY_HAND.items()})
    for one in twice:
        one.run["steps"] = 9
    with pytest.raises(StudyError, match="two different runs"):
        stats.interaction(made + twice, *ARMS)
