"""The study behind the cards resumes, runs what is missing in processes of one thread, and tells what failed."""

import dataclasses

import pytest
from typer.testing import CliRunner

from klnorm_lib import study
from klnorm_lib.report import card_plan, card_study
from tests.study import small


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    reviews = small.csv(tmp_path_factory.mktemp("cards") / "reviews.csv")
    base = study.Run(None, "tf-idf", "frozen", data=str(reviews), text="words", label="verdict")
    return [dataclasses.replace(base, seed=s, split_seed=s) for s in range(3)]


def test_what_is_recorded_is_not_done_again(runs, tmp_path, monkeypatch, capsys):
    records = tmp_path / "r.jsonl"
    assert card_study.carry_out(runs[:1], str(records)) == []
    assert card_study.study(runs, records, jobs=2) == []
    assert "3 runs, 1 of them recorded already" in capsys.readouterr().err
    found = study.read_records(records)
    assert sorted(r.run["seed"] for r in found) == [0, 1, 2]
    assert {r.hardware["threads"] for r in found} == {1}
    monkeypatch.setattr(card_study, "carry_out", lambda *a: pytest.fail("done again"))
    assert card_study.study(runs, records, jobs=1) == []
    assert len(study.read_records(records)) == 3


def test_a_failure_is_told_and_the_rest_goes_on(runs, tmp_path):
    bad = dataclasses.replace(runs[0], size=100_000)
    told = card_study.carry_out([bad, runs[1]], str(tmp_path / "r.jsonl"))
    assert len(told) == 1
    assert "larger than the data" in told[0]
    assert told[0].startswith("klnorm run")
    assert len(study.read_records(tmp_path / "r.jsonl")) == 1


def test_other_weights_are_another_run(tmp_path):
    encoder = small.encoder(tmp_path / "small")
    asked = study.Run("cr", str(encoder), "frozen", size=100)
    before = card_study.key(asked)
    random = card_study.key(dataclasses.replace(asked, encoder=f"{encoder}:random"))
    weights = encoder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert card_study.key(asked) != before
    assert card_study.key(dataclasses.replace(asked, encoder=f"{encoder}:random")) == random


def test_frozen_runs_of_an_encoder_share_a_process():
    plan = card_plan.Plan("e", {"a": (20, 40)}, [("e", "plain"), ("tf-idf", "frozen")], rates=(1.0,), seeds=2)
    assert [len(parcel) for parcel in card_study.jobs_of(plan.runs())] == [1, 1, 1, 1, 4]


def test_command_line_lists_the_runs_of_a_plan():
    import typer

    app = typer.Typer()
    app.command()(card_study.main)
    words = ["text", "--records", "none.jsonl", "--dry", "--task", "trec", "--only", "klnorm-tiny"]
    lines = CliRunner().invoke(app, words).stdout.splitlines()
    assert len(lines) == 5 * len(card_plan.PLANS["text"].rates)
    assert all(line.startswith("klnorm run --task trec --encoder klnorm-tiny --method plain") for line in lines)
    assert "no plan" in CliRunner().invoke(app, ["texts", "--records", "r"]).output
    assert "nothing of the plan" in CliRunner().invoke(app, ["text", "--records", "r", "--task", "x"]).output
