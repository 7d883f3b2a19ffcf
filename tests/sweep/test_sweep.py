"""A study carries out what is not recorded yet, tells what failed, and goes on."""

import dataclasses
import json

import pytest

from klnorm_lib import study
from klnorm_lib.sweep import design, execution, grid
from klnorm_lib.sweep.execution import Options, execute
from klnorm_lib.sweep.index import RecordIndex, identity, run_of
from klnorm_lib.sweep.progress import StudyProgress, spell
from tests.study import small

QUIET = Options(progress=False)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Three quick runs that differ in their replicate."""
    reviews = small.csv(tmp_path_factory.mktemp("sweep") / "reviews.csv")
    base = study.Run(None, "tf-idf", "frozen", data=str(reviews), text="words", label="verdict")
    return [dataclasses.replace(base, seed=s, split_seed=s) for s in range(3)]


def items(runs, arm="a", stage="final"):
    values = {"name": "s", "part": "p", "arm": arm, "label": arm, "stage": stage, "trial": {}, "trials": 1}
    return [design.Item(run, values) for run in runs]


def test_what_is_recorded_is_not_done_again(frozen, tmp_path):
    records = tmp_path / "r.jsonl"
    first = execute(frozen[:1], records, QUIET)
    assert (first.planned, first.made, first.found, first.complete) == (1, 1, 0, True)
    second = execute(frozen, records, QUIET)
    assert (second.planned, second.made, second.found) == (3, 2, 1)
    content = records.read_bytes()
    third = execute(frozen, records, QUIET)
    assert (third.made, third.found) == (0, 3)
    assert records.read_bytes() == content
    assert {r.hardware["threads"] for r in study.read_records(records)} == {1}


def test_other_rows_under_the_same_name_are_another_run(frozen, tmp_path):
    reviews = small.csv(tmp_path / "reviews.csv")
    here = dataclasses.replace(frozen[0], data=str(reviews))
    records = tmp_path / "r.jsonl"
    execute([here], records, QUIET)
    reviews.write_text(reviews.read_text().replace("good", "bad"))
    assert identity(here) == identity(frozen[0])  # by its name alone it cannot be seen
    assert execute([here], records, QUIET).made == 1
    assert len({r.hash for r in study.read_records(records)}) == 2


def test_a_run_of_two_arms_is_done_once_and_recorded_under_both(frozen, tmp_path):
    records = tmp_path / "r.jsonl"
    summary = execute([*items(frozen[:1], "a"), *items(frozen[:1], "b")], records, QUIET)
    assert (summary.planned, summary.made) == (1, 1)
    a, b = study.read_records(records)
    assert (a.study["arm"], b.study["arm"]) == ("a", "b")
    assert (a.hash, a.created, a.test) == (b.hash, b.created, b.test)
    execute(items(frozen[:1], "b"), records, QUIET)
    assert len(study.read_records(records)) == 2
    assert execute(items(frozen[:1], "c"), records, QUIET).found == 1  # a name that came later
    assert [r.study["arm"] for r in study.read_records(records)] == ["a", "b", "c"]


def test_a_default_written_out_is_the_same_run(frozen):
    run = study.Run("trec", "klnorm-nano", "klnorm")
    assert identity(run) == identity(dataclasses.replace(run, method_args={"beta": 1e-3}))
    assert identity(run) != identity(dataclasses.replace(run, method_args={"beta": 1e-2}))
    assert identity(run) != identity(dataclasses.replace(run, seed=1))
    assert identity(run) == identity(dataclasses.replace(run, device="cpu", source="mirror"))


def test_a_failure_is_recorded_and_reported_and_the_rest_goes_on(encoder, reviews, frozen, tmp_path):
    records = tmp_path / "r.jsonl"
    diverging = small.run(encoder, reviews, learning_rate=1e30, max_grad_norm=1e30, steps=3, evaluations=1)
    too_many = dataclasses.replace(frozen[0], size=100_000)
    summary = execute([diverging, too_many, frozen[1]], records, QUIET)
    assert (summary.planned, summary.made, len(summary.failures)) == (3, 1, 2)
    assert not summary.complete
    text = "\n".join(map(str, summary.failures))
    assert "NotFiniteError" in text
    assert "larger than the data" in text
    assert text.count("klnorm run") == 2
    found = study.read_records(records)
    assert sorted(r.status for r in found) == ["failed", "finished"]

    again = execute([diverging, frozen[1]], records, QUIET)
    assert (again.made, again.found) == (0, 1)
    assert "--retry" in again.failures[0].message
    assert len(study.read_records(records)) == 2
    execute([diverging], records, dataclasses.replace(QUIET, retry=True))
    assert [r.status for r in study.read_records(records)].count("failed") == 2


def test_cells_that_cannot_be_tuned_are_left_out_and_the_others_done(tmp_path):
    text = """
    common: {steps: 1, batch_size: 8, evaluations: 1, max_length: 16, test_rows: 20, ood: false, device: cpu}
    tuning: {draws: [100]}
    arms:
      plain: {tune: {learning_rate: [1e-4, 1e-3]}}
      frozen: {method: frozen, encoder: tf-idf}
    parts: {p: {tasks: {topic_shift: [999999]}, encoders: [klnorm-nano], arms: [plain], draws: 1},
            q: {tasks: {topic_shift: [40]}, encoders: [klnorm-nano], arms: [frozen], draws: 1}}
    """
    summary = execution.sweep(grid.parse(text, "s"), tmp_path / "r.jsonl", progress=False)
    assert (summary.planned, summary.made, len(summary.failures)) == (3, 1, 2)
    assert summary.left_out[0].startswith("topic_shift/999999/klnorm-nano/plain: a tuning run is not recorded")
    assert not summary.complete


def test_a_failed_tuning_run_puts_its_trial_last(tmp_path):
    text = """
    common: {steps: 3, batch_size: 8, evaluations: 1, max_length: 16, test_rows: 20, ood: false, device: cpu}
    tuning: {draws: [100]}
    arms: {plain: {settings: {max_grad_norm: 1e30}, tune: {learning_rate: [1e30, 1e-3]}}}
    parts: {p: {tasks: {topic_shift: [40]}, encoders: [klnorm-nano], arms: all, draws: 1}}
    """
    summary = execution.sweep(grid.parse(text, "s"), tmp_path / "r.jsonl", progress=False)
    assert (summary.planned, summary.made, len(summary.failures), summary.left_out) == (3, 2, 1, [])
    final = study.read_records(tmp_path / "r.jsonl")[-1]
    assert (final.study["stage"], final.study["trial"]) == ("final", {"learning_rate": 1e-3})


def test_a_record_tells_the_run_again(frozen, tmp_path):
    index = RecordIndex(None)
    execute(frozen[:1], index, QUIET)
    again = dataclasses.replace(run_of(index.records[0]), data=frozen[0].data)
    assert again == frozen[0]
    assert json.loads(index.records[0].to_line())["study"] is None


def test_time_left_comes_from_runs_of_the_same_kind(frozen):
    times = {0: 100.0, 1: None, 2: 50.0}
    with StudyProgress("final", frozen, 2, lambda run: times[run.seed], enabled=False) as shown:
        assert shown.left() == pytest.approx(75 * 3 / 2)
        shown.done(frozen[0], failed=True)
        assert shown.left() == pytest.approx(50 * 2 / 2)
        assert shown.note() == "1 failed, about 50 s left"
        shown.done(frozen[2])
        assert shown.left() is None
    assert [spell(s) for s in (0.2, 60, 600, 12000)] == ["1 s", "60 s", "10 min", "3 h 20 min"]


def test_typical_times_come_from_the_most_similar_runs(frozen, tmp_path):
    index = RecordIndex(None)
    assert index.seconds(frozen[0]) is None
    execute(frozen[:1], index, QUIET)
    seconds = index.records[0].time["total_seconds"]
    assert index.seconds(frozen[1]) == seconds
    assert index.seconds(dataclasses.replace(frozen[1], size=20)) == seconds
    assert index.seconds(study.Run("trec", "klnorm-nano")) == seconds
