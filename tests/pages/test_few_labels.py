"""The runs of the chapter on few labels: the design, and the committed records against it."""

from itertools import product

import pytest

from klnorm_lib.pages import few_labels
from klnorm_lib.study import read_records
from tests.pages.test_card import fake


def fields(run):
    return (run["method"], run["size"], run["split_seed"], run["seed"], run["learning_rate"])


def test_subsets_and_seeds_are_crossed_and_the_trials_use_other_subsets():
    planned = [r.to_dict() for r in few_labels.runs(1e-3)]
    crossed = {fields(r) for r in planned if r["split_seed"] in few_labels.SUBSETS}
    wanted = product(few_labels.SIZES, few_labels.SUBSETS, few_labels.SEEDS)
    assert crossed == {("plain", *place, 1e-3) for place in wanted}
    assert len({fields(r) for r in planned}) == len(planned)
    assert not {r["split_seed"] for r in planned} & {r.split_seed for r in few_labels.trials()}


def test_runs_differ_in_nothing_else():
    varying = {"size", "split_seed", "seed", "learning_rate"}
    tuned = [*few_labels.trials(), *(r for r in few_labels.runs(1e-3) if r.method == "plain")]
    assert len({str({k: v for k, v in r.to_dict().items() if k not in varying}) for r in tuned}) == 1


def test_the_rate_is_chosen_on_the_validation_rows_of_the_trials():
    records = [fake("e", rate, seed, validation, 1 - validation) for seed in few_labels.TRIALS
               for rate, validation in ((3e-4, 0.6), (1e-3, 0.7))]  # fmt: skip
    records += [fake("e", 3e-3, seed, 0.9, 0.9) for seed in few_labels.SUBSETS]
    assert few_labels.chosen_rate(records) == 1e-3


@pytest.fixture(scope="module")
def records():
    return [r for r in read_records(few_labels.FILE) if r.status == "finished"]


def test_the_records_are_the_plan(records):
    rate = few_labels.chosen_rate(records)
    planned = [*few_labels.trials(), *few_labels.runs(rate)]
    assert sorted(fields(r.run) for r in records) == sorted(fields(r.to_dict()) for r in planned)
    assert len({(r.encoder["sha256"], r.hardware["threads"], r.rows["test"]) for r in records}) == 1
    assert {r.task["checksums"]["test"] for r in records} == {records[0].task["checksums"]["test"]}


def test_runs_of_one_subset_have_the_same_rows(records):
    parts = {}
    for r in records:
        rows = r.task["checksums"]["train"], r.task["checksums"]["validation"]
        parts.setdefault((r.run["size"], r.run["split_seed"]), set()).add(rows)
    assert {len(rows) for rows in parts.values()} == {1}
    assert len({rows for members in parts.values() for rows in members}) == len(parts)
