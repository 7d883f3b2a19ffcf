"""A committed result is made again: equal numbers on the same machine, and a stated tolerance elsewhere."""

import dataclasses
import math

import pytest
from scipy import stats

from klnorm_lib.study import StudyError
from klnorm_lib.sweep import remake
from klnorm_lib.sweep.execution import Options
from klnorm_lib.sweep.remake import ResultName

RESULT = ResultName("topic_shift", 40, "klnorm-nano", "frozen")
QUIET = Options(progress=False)


@pytest.fixture(scope="module")
def committed():
    return remake.committed("smoke", RESULT)


@pytest.fixture(scope="module")
def remade():
    return remake.remake("smoke", RESULT, replicates=1, options=QUIET)[0]


def with_scores(records, scores, **hardware):
    """Copies of records with other test scores, on other hardware perhaps."""
    return [
        dataclasses.replace(
            record,
            test={**record.test, "accuracy": score},
            hardware={**record.hardware, **hardware},
            row_scores={},
        )
        for record, score in zip(records, scores, strict=True)
    ]


def test_a_result_by_its_name():
    assert ResultName.parse("trec/200/klnorm-tiny/klnorm_b") == ResultName("trec", 200, "klnorm-tiny", "klnorm_b")
    long = "trec/200/sentence-transformers/all-MiniLM-L6-v2/plain"
    assert ResultName.parse(long).encoder == "sentence-transformers/all-MiniLM-L6-v2"
    assert str(ResultName.parse(long)) == long
    assert ResultName.parse("trec/None/klnorm-tiny/plain").size is None
    for wrong in ("trec/200/plain", "trec", "trec/few/klnorm-tiny/plain"):
        with pytest.raises(StudyError, match="TASK/SIZE/ENCODER/ARM"):
            ResultName.parse(wrong)


def test_a_committed_result_is_made_again_within_its_tolerance(committed, remade):
    assert len(committed) == 3
    assert remade.replicates == ((0, 0),)
    assert remade.committed == (committed[0].test["accuracy"],)
    assert remade.holds, remade
    if remade.same:
        assert remade.tolerance == 0
        assert remade.remade == remade.committed


def test_on_the_same_machine_every_number_must_be_equal(committed):
    assert remake.compare(RESULT, committed, committed).holds
    scores = [r.test["accuracy"] for r in committed]
    off = with_scores(committed, [scores[0] + 1e-6, *scores[1:]])
    found = remake.compare(RESULT, committed, off)
    assert (found.same, found.tolerance, found.holds) == (True, 0.0, False)
    assert found.difference == pytest.approx(1e-6)


def test_elsewhere_the_mean_may_move_as_far_as_seeds_and_test_rows_allow(committed):
    old = with_scores(committed, [0.5, 0.6, 0.7])
    allowed = stats.t.ppf(0.995, 2) * 0.1 * math.sqrt(2 / 3)
    near = with_scores(old, [0.5 + 0.9 * allowed, 0.6 + 0.9 * allowed, 0.7 + 0.9 * allowed], cpu="another")
    found = remake.compare(RESULT, old, near)
    assert (found.same, found.other) == (False, ("cpu",))
    assert found.tolerance == pytest.approx(allowed)
    assert found.holds
    assert not remake.compare(
        RESULT, old, with_scores(old, [r + 1.1 * allowed for r in (0.5, 0.6, 0.7)], cpu="b")
    ).holds


def test_the_test_rows_own_error_is_the_least_tolerance(committed):
    old = with_scores(committed, [0.5, 0.5, 0.5])  # no spread at all
    row = math.sqrt(0.25 / committed[0].rows["test"])
    assert remake.row_error(old[0]) == pytest.approx(row)
    assert remake.tolerance(old, 3) == pytest.approx(stats.t.ppf(0.995, 2) * row * math.sqrt(2 / 3))
    assert remake.tolerance(old[:1], 1) == pytest.approx(stats.norm.ppf(0.995) * row * math.sqrt(2))
    scores = [r.test["accuracy"] for r in committed]
    n = committed[0].rows["test"]
    assert remake.row_error(committed[0]) == pytest.approx(math.sqrt(scores[0] * (1 - scores[0]) / (n - 1)))


def test_other_data_is_reported(committed):
    other = [dataclasses.replace(r, hash="0" * 64) for r in committed]
    assert remake.compare(RESULT, committed, other).other == ("data, weights or method",)


def test_a_result_that_there_is_not():
    with pytest.raises(StudyError, match="topic_shift/40/klnorm-nano/plain"):
        remake.committed("smoke", dataclasses.replace(RESULT, arm="klnorm_z"))
    with pytest.raises(StudyError, match="no committed records"):
        remake.committed("no-such-study", RESULT)


def test_a_result_in_two_parts_needs_its_part():
    result = remake.ResultName.parse("trec/200/klnorm-tiny/klnorm_b")
    with pytest.raises(StudyError, match="--part: headline, longer"):
        remake.committed("text", result)
    parts = {part: remake.committed("text", result, part) for part in ("headline", "longer")}
    assert {part: {r.study["part"] for r in found} for part, found in parts.items()} == {p: {p} for p in parts}
    assert parts["longer"][0].run["steps"] > parts["headline"][0].run["steps"]
