"""A study's YAML: what it spells out, how a trial is chosen, and what it says when something is wrong."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from klnorm_lib import studies
from klnorm_lib.study import StudyError
from klnorm_lib.sweep import grid

TEXT = """
title: Small
common: {steps: 4, batch_size: 4, evaluations: 1}
tuning: {draws: [100, 101], size: 40, common: {test_rows: 10}}
arms:
  plain: {tune: {learning_rate: [1e-4, 1e-3]}}
  klnorm: {label: KL-Norm, method: klnorm, method_args: {form: B}, tune: {beta: [0.1, 0.01]}}
  frozen: {method: frozen}
parts:
  here: {tasks: {topic_shift: [40, 80]}, encoders: [klnorm-nano], draws: 3}
  full: {tasks: {topic_shift: [80, 160]}, encoders: [klnorm-nano], arms: [plain], default: false,
    draws: {split_seeds: [0, 1], seeds: [0, 1]}}
"""


def finished(item, score, loss=1.0):
    task = {"primary_metric": "accuracy"}
    validation = {"accuracy": score, "nll": loss}
    return SimpleNamespace(run=item.run.to_dict(), status="finished", task=task, validation=validation)


@pytest.fixture
def small():
    return grid.parse(TEXT, "small")


def test_tuning_is_every_trial_on_the_tuning_replicates(small):
    items = small.tuning()
    assert len(items) == 2 * 2 * 2  # arms with something to tune, trials, replicates; both sizes are tuned at 40
    assert {i.run.split_seed for i in items} == {100, 101}
    assert {i.run.size for i in items} == {40}
    assert {i.run.test_rows for i in items} == {10}
    plain, klnorm = (next(i for i in items if i.study["arm"] == arm) for arm in ("plain", "klnorm"))
    assert plain.run.learning_rate == 1e-4
    assert plain.run.method == "plain"
    assert dict(klnorm.run.method_args) == {"form": "B", "beta": 0.1}
    assert klnorm.study["label"] == "KL-Norm"
    assert klnorm.study["grid"] == [{"beta": 0.1}, {"beta": 0.01}]
    assert klnorm.study["trials"] == 2


def test_the_final_runs_take_the_trial_that_did_best_on_validation(small):
    wins = {"learning_rate": 1e-3, "beta": 0.1}
    records = [finished(i, 0.9 if set(i.study["trial"].items()) & set(wins.items()) else 0.5) for i in small.tuning()]
    items = small.final(records)
    assert len(items) == 3 * 2 * 3  # arms, sizes, replicates
    assert {i.run.learning_rate for i in items if i.study["arm"] == "plain"} == {1e-3}
    assert {i.run.method_args["beta"] for i in items if i.study["arm"] == "klnorm"} == {0.1}
    assert {i.study["stage"] for i in items} == {"final"}
    assert {i.run.test_rows for i in items} == {None}
    assert all(i.study["trial"] == {"learning_rate": 1e-3} for i in items if i.study["arm"] == "plain")


def test_among_equals_the_lower_loss_and_then_the_first_wins(small):
    items = small.tuning()
    losses = [finished(i, 0.5, loss=0.1 if i.study["trial"].get("beta") == 0.01 else 0.2) for i in items]
    chosen = {i.study["arm"]: dict(i.study["trial"]) for i in small.final(losses)}
    assert chosen == {"plain": {"learning_rate": 1e-4}, "klnorm": {"beta": 0.01}, "frozen": {}}


REPORTED = """
common: {steps: 4, batch_size: 4, evaluations: 1}
tuning: {draws: final}
arms: {plain: {tune: {learning_rate: [1e-4, 1e-3]}}, frozen: {method: frozen}}
parts:
  two: {tasks: {topic_shift: [40]}, encoders: [klnorm-nano], draws: 3}
  three: {tasks: {topic_shift: [80]}, encoders: [klnorm-nano], draws: 3, tune: {learning_rate: [1e-4, 1e-3, 1e-2]}}
"""


def test_a_study_may_say_that_it_tunes_on_the_replicates_that_it_reports():
    study = grid.parse(REPORTED, "reported")
    tuning = study.tuning(["two"])
    assert {(i.run.split_seed, i.run.seed) for i in tuning} == {(0, 0), (1, 1), (2, 2)}
    final = study.final([finished(i, i.run.learning_rate) for i in tuning], ["two"])
    assert {i.run for i in final if i.study["arm"] == "plain"} < {i.run for i in tuning}
    assert {i.run.learning_rate for i in final if i.study["arm"] == "plain"} == {1e-3}
    tied = [finished(i, 0.5, loss=-i.run.learning_rate) for i in tuning]  # the loss has no say
    assert {dict(i.study["trial"]).get("learning_rate") for i in study.final(tied, ["two"])} == {1e-4, None}


def test_a_part_may_have_trials_of_its_own():
    study = grid.parse(REPORTED, "reported")
    assert {i.run.learning_rate for i in study.tuning(["three"])} == {1e-4, 1e-3, 1e-2}
    assert {i.run.method for i in study.tuning(["three"])} == {"plain"}
    with pytest.raises(StudyError, match="parts.three.tune: give lists"):
        grid.parse(REPORTED.replace("[1e-4, 1e-3, 1e-2]", "1e-4"), "reported")


def test_a_missing_tuning_run_is_named(small):
    records = [finished(i, 0.5) for i in small.tuning()][1:]
    with pytest.raises(StudyError, match="klnorm run --task topic_shift"):
        small.final(records)


def test_where_it_was_run_does_not_matter(small):
    items = [replace(i, run=replace(i.run, device="cpu")) for i in small.tuning()]
    assert small.final([finished(i, 0.5) for i in items])


def test_parts_are_chosen_by_name_and_seeds_can_be_crossed(small):
    records = [finished(i, 0.5) for i in small.tuning(["full"])]
    pairs = {(i.run.split_seed, i.run.seed) for i in small.final(records, ["full"])}
    assert pairs == {(0, 0), (0, 1), (1, 0), (1, 1)}
    with pytest.raises(StudyError, match="no part fulll; it has here, full"):
        small.tuning(["fulll"])


def test_runs_that_two_parts_share_are_done_once(small):
    assert len(small.tuning(["here", "full"])) == len(small.tuning(["here"]))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[1e-4, 1e-3]", "[1e-4, 1e-3, 1e-2]", "as many trials as the others.*plain 3, klnorm 2"),
        ("draws: 3", "draws: [100]", "tuned on and reported; keep them apart"),
        ("draws: 3", "draws: 0", "parts.here.draws: give a number of replicates"),
        ("draws: 3", "draws: [1, 1]", "list of different seeds"),
        ("[40, 80]", "40", "give a list of sizes"),
        ("steps: 4", "stepz: 4", "common: stepz cannot be set here"),
        ("steps: 4", "task: sst2", "task cannot be set here"),
        ("arms: [plain]", "arms: [plane]", "arms must be 'all' or a list of"),
        ("title:", "titel:", "unknown key titel"),
        ("{beta: [0.1, 0.01]}", "{beta: 0.1}", "arms.klnorm.tune: give lists"),
        ("draws: [100, 101], ", "", "tuning.draws must name"),
        ("parts:", "parts: [", "not YAML"),
    ],
)
def test_mistakes_are_reported_with_their_place(old, new, message):
    assert old in TEXT
    with pytest.raises(StudyError, match=message):
        grid.parse(TEXT.replace(old, new, 1), "small")


@pytest.mark.parametrize("name", studies.names())
def test_every_packaged_study_can_be_read_and_spelt_out(name):
    study = grid.load(name)
    assert study.question
    assert study.title
    for part in study.parts.values():
        few = replace(study, parts={part.name: replace(part, encoders=part.encoders[:1])})  # the others go as it does
        final = few.final([finished(i, 0.5) for i in few.tuning([part.name])], [part.name])
        assert final
        assert all(i.run.split_seed < 100 or name.endswith("pilot") for i in final)


def test_an_unknown_study_is_reported(tmp_path):
    with pytest.raises(StudyError, match="there are .*text"):
        grid.load("texts")
    with pytest.raises(StudyError, match="no study file at"):
        grid.load(tmp_path / "mine.yaml")


def test_how_much_of_a_part_is_recorded(small):
    tuning = [finished(i, 0.5) for i in small.tuning()]
    final = small.final(tuning)
    planned = len(tuning) + len(final)
    assert small.recorded([]) == (0, planned)
    assert small.recorded(tuning) == (len(tuning), planned)
    assert small.recorded([*tuning, *(finished(i, 0.5) for i in final[:4])]) == (len(tuning) + 4, planned)
    failed = finished(final[0], 0.5)
    failed.status = "failed"
    assert small.recorded([*tuning, failed]) == (len(tuning), planned)
