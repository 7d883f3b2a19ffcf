"""Outcomes of a study: who is in them, what they are compared with, and what the numbers are."""

import statistics

import pytest

from klnorm_lib.pages import outcomes as c
from klnorm_lib.pages.counts import runs_behind
from klnorm_lib.pages.remake import remake_command
from klnorm_lib.sweep.remake import ResultName as Place
from tests.pages import made


@pytest.fixture(scope="module")
def found():
    return c.outcomes(made.study(), "text")


def one(found, **where):
    (outcome,) = [outcome for outcome in found if all(getattr(outcome, k) == v for k, v in where.items())]
    return outcome


def test_every_arm_task_and_test_set_is_an_outcome(found):
    assert len(found) == 2 * 4 * 2
    assert len({outcome.name for outcome in found}) == len(found)
    assert {outcome.split for outcome in found} == {"test", "ood/far"}


def test_tuning_runs_are_no_results(found):
    outcome = one(found, arm="klnorm_b", task="trec", split="test")
    assert outcome.replicates == ((0, 0), (1, 1), (2, 2))
    assert outcome.mean == pytest.approx(statistics.fmean([0.53, 0.56, 0.59]))
    assert outcome.spread == pytest.approx(statistics.stdev([0.53, 0.56, 0.59]))
    assert outcome.trial == "learning_rate 0.001; of 4 trials"


def test_difference_is_paired_by_draw_and_by_test_set(found):
    outcome = one(found, arm="klnorm_b", task="trec", split="test")
    assert outcome.against.baseline == "plain"
    assert list(outcome.against.differences) == pytest.approx([0.03, 0.04, 0.05])
    assert outcome.against.mean == pytest.approx(0.04)
    assert outcome.against.low == pytest.approx(0.04 - 4.302653 * 0.01 / 3**0.5)
    shifted = one(found, arm="klnorm_b", task="trec", split="ood/far")
    assert shifted.mean == pytest.approx(0.32)
    assert shifted.against.mean == pytest.approx(0)
    assert one(found, arm="plain", task="trec", split="test").against is None


def test_failed_runs_are_kept_apart(found):
    outcome = one(found, arm="vib", task="trec", split="test")
    assert len(outcome.runs) == 3
    assert len(outcome.failed) == 1
    assert not one(found, arm="vib", task="trec", split="ood/far").failed


def test_parts_stand_apart_only_where_they_differ():
    records = [made.record(arm, d, 0.5 + 0.01 * d) for arm in ("plain", "vib") for d in range(3)]
    shared = [made.record(arm, d, 0.5 + 0.01 * d, part="sizes") for arm in ("plain", "vib") for d in range(3)]
    assert [outcome.part for outcome in c.outcomes(records + shared, "text")] == [None, None]
    longer = [made.record(arm, d, 0.6 + 0.01 * d, part="longer") for arm in ("plain", "vib") for d in range(3)]
    assert [outcome.part for outcome in c.outcomes(records + longer, "text")] == [
        "headline",
        "headline",
        "longer",
        "longer",
    ]


def test_an_arm_with_an_encoder_of_its_own_is_compared_at_the_baselines():
    plain = [made.record("plain", d, 0.5 + 0.01 * d, encoder=e) for e in ("e", "f") for d in range(3)]
    counted = [made.record("frozen", d, 0.6 + 0.02 * d, encoder="tf-idf") for d in range(3)]
    both = [outcome for outcome in c.outcomes(plain + counted, "text") if outcome.arm == "frozen"]
    assert [(outcome.encoder, outcome.against.encoder) for outcome in both] == [("tf-idf", "e"), ("tf-idf", "f")]
    assert len({outcome.name for outcome in both}) == 2


def test_without_plain_the_first_arm_without_a_method_is_the_baseline():
    records = [made.record(arm, d, 0.5 + 0.01 * d) for arm in ("plain_slow", "plain_fast", "vib") for d in range(3)]
    for r in records:
        if r.study["arm"].startswith("plain"):
            r.method = {**r.method, "name": "plain"}
    against = {outcome.arm: outcome.against and outcome.against.baseline for outcome in c.outcomes(records, "pilot")}
    assert against == {"plain_slow": None, "plain_fast": "plain_slow", "vib": "plain_slow"}


def test_over_settings_joins_tasks_by_squares_and_sizes_by_sums():
    found = c.outcomes(made.study(), "text")
    tasks = [outcome for outcome in found if outcome.arm == "klnorm_b" and outcome.split == "test"]
    half = tasks[0].against.mean - tasks[0].against.low
    mean, low, high = c.over_settings(tasks)
    assert mean == pytest.approx(0.04)
    assert high - low == pytest.approx(2 * half / 2**0.5)
    sizes = [
        made.record(a, d, s + g, size=n)
        for n in (100, 200)
        for a, gs in (("plain", (0, 0, 0)), ("vib", (0.01, 0.02, 0.03)))
        for d, (s, g) in enumerate(zip((0.5, 0.6, 0.7), gs, strict=True))
    ]
    vib = [outcome for outcome in c.outcomes(sizes, "text") if outcome.arm == "vib"]
    mean, low, high = c.over_settings(vib)
    assert high - low == pytest.approx(vib[0].against.high - vib[0].against.low)
    assert all(v != v for v in c.over_settings([]))


def test_counts_hold_every_run_once():
    records = made.study()
    counts = runs_behind({"text": records, "again": records[:6]})
    assert list(counts["study"]) == ["text", "again", "all"]
    text, again, total = counts.to_dict("records")
    assert (text["runs"], text["to tune"], text["final"], text["failed"]) == (27, 2, 25, 1)
    assert again["runs"] == 6
    assert total["runs"] == 27
    assert total["tasks"] == 2


def test_command_of_a_cell_names_it_as_the_study_command_reads_it(found):
    command = remake_command(one(found, arm="klnorm_b", task="trec", split="test"))
    assert command == "klnorm study text --remake trec/200/e/klnorm_b"
    assert Place.parse(command.split()[-1]) == Place("trec", 200, "e", "klnorm_b")
    assert remake_command(c.outcomes(made.study(), "not a packaged study")[0]) is None


def test_plain_at_the_common_rate_is_a_second_baseline():
    records = [made.record(arm, d, 0.5 + g + 0.01 * d) for arm, g in (("plain", 0), ("vib", 0.05)) for d in range(3)]
    records += [made.record("plain_shared", d, 0.54 + 0.02 * d) for d in range(3)]
    found = {outcome.arm: outcome for outcome in c.outcomes(records, "text")}
    assert found["vib"].against.mean == pytest.approx(0.05)
    assert found["vib"].second.baseline == "plain_shared"
    assert found["vib"].second.mean == pytest.approx(0.0)
    assert found["plain_shared"].second is None
    assert found["plain_shared"].against.mean == pytest.approx(0.05)


def test_half_the_dropout_is_a_second_baseline_too():
    scores = {"uniform_10": 0.5, "uniform_05": 0.54, "guided": 0.55}
    records = [
        made.record(arm, d, score + 0.01 * d * k) for k, (arm, score) in enumerate(scores.items()) for d in range(3)
    ]
    for r in records:
        r.method = {**r.method, "name": "plain" if r.study["arm"] == "uniform_10" else "dropout"}
    found = {outcome.arm: outcome for outcome in c.outcomes(records, "guided")}
    assert found["uniform_10"].against is None
    assert found["guided"].against.baseline == "uniform_10"
    assert found["guided"].second.baseline == "uniform_05"
    assert found["guided"].second.mean == pytest.approx(0.02)
    assert found["uniform_05"].second is None
    assert found["uniform_05"].against.mean == pytest.approx(0.05)
    (alone,) = [outcome for outcome in c.outcomes(records, "guided", "uniform_05") if outcome.arm == "guided"]
    assert (alone.against.baseline, alone.second) == ("uniform_05", None)
