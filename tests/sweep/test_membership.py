"""Records made before their study had a YAML file: the study spells out their runs, and finds every one as done."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from klnorm_lib import studies
from klnorm_lib.study import StudyError, read_records
from klnorm_lib.study.store import append
from klnorm_lib.sweep import grid, remake
from klnorm_lib.sweep.index import RecordIndex, identity
from klnorm_lib.sweep.membership import by_study, members

EARLY = ("few_labels", "first_look", "klnorm_nano", "klnorm_tiny", "klnorm_tiny_speech", "text_table")
RUNS = {"few_labels": 109, "first_look": 210, "klnorm_nano": 270, "klnorm_tiny": 125, "klnorm_tiny_speech": 150}
ALSO = {"first_look": "klnorm_nano"}  # whose plain arm it shares


@pytest.fixture(scope="module")
def recorded():
    return {name: read_records(studies.path(f"{name}.jsonl")) for name in EARLY}


@pytest.mark.parametrize("name", EARLY)
def test_every_run_that_the_study_spells_out_is_done_already(name, recorded):
    indexes = [RecordIndex(studies.path(f"{of}.jsonl")) for of in (name, ALSO.get(name)) if of]
    study = grid.load(name)
    items = [*study.tuning(), *study.final([r for index in indexes for r in index.records])]
    runs = {identity(item.run): item.run for item in items}
    assert len(runs) == RUNS.get(name, 750)
    for run in runs.values():
        assert any("finished" in index.lookup(run).values() for index in indexes), run.command()


@pytest.mark.parametrize("name", EARLY)
def test_every_record_is_in_its_study(name, recorded):
    pool = [r for records in recorded.values() for r in records]
    found = members(name, recorded[name], pool)
    assert {r.hash for r in recorded[name]} <= {r.hash for r in found}
    assert {r.study["name"] for r in found} == {name}
    assert all(r.study is None for r in recorded[name])
    assert len({(r.hash, r.study["arm"], r.study["stage"]) for r in found}) == len(found)
    beside = [r for r in found if r.study["part"] == "beside"]
    assert {(r.study["stage"], r.run["learning_rate"]) for r in beside} <= {("tuning", 3e-3)}
    assert len(beside) == (6 if name == "klnorm_tiny_speech" else 0)


def test_a_study_of_its_own_replicates_keeps_trials_and_results_apart(recorded):
    found = members("few_labels", recorded["few_labels"], recorded["few_labels"])
    of = {stage: [r for r in found if r.study["stage"] == stage] for stage in ("tuning", "final")}
    assert {r.run["split_seed"] for r in of["tuning"]} == {20, 21, 22}
    assert {r.run["learning_rate"] for r in of["final"] if r.study["arm"] == "plain"} == {1e-3}
    crossed = [r.run for r in of["final"] if r.study["part"] == "crossed"]
    wanted = product((50, 100, 200, 500), range(5), range(4))
    assert Counter((run["size"], run["split_seed"], run["seed"]) for run in crossed) == Counter(wanted)
    assert {r.run["split_seed"] for r in of["final"] if r.study["part"] == "paired"} == {*range(10, 20)}


def test_runs_of_one_subset_have_the_same_rows(recorded):
    parts = {}
    for r in recorded["few_labels"]:
        rows = r.task["checksums"]["train"], r.task["checksums"]["validation"]
        parts.setdefault((r.run["size"], r.run["split_seed"]), set()).add(rows)
    assert {len(rows) for rows in parts.values()} == {1}
    assert len({rows for members in parts.values() for rows in members}) == len(parts)
    assert len({r.task["checksums"]["test"] for r in recorded["few_labels"]}) == 1


def test_records_that_say_their_study_are_taken_at_their_word(tmp_path, recorded):
    record = recorded["few_labels"][0]
    values = {"name": "mine", "part": "p", "arm": "a", "label": "a", "stage": "final", "trial": {}, "trials": 1}
    append(tmp_path / "any.jsonl", replace(record, study=values))
    assert [r.study for r in by_study([tmp_path / "any.jsonl"])["mine"]] == [values]
    append(tmp_path / "none.jsonl", record)
    with pytest.raises(StudyError, match="none.jsonl name no study"):
        by_study([tmp_path / "none.jsonl"])


def test_a_result_of_an_early_study_can_be_remade():
    result = remake.ResultName.parse("topic_shift/50/klnorm-nano/plain")
    found = remake.committed("first_look", result)
    assert [(r.run["split_seed"], r.run["seed"]) for r in found] == [(i, i) for i in range(5)]
