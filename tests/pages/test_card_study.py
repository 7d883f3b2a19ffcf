"""The study behind the cards resumes, and tells what failed."""

import dataclasses

import pytest
from typer.testing import CliRunner

from klnorm_lib import study
from klnorm_lib.pages import card_plan, card_study
from tests.study import small


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    reviews = small.csv(tmp_path_factory.mktemp("cards") / "reviews.csv")
    base = study.Run(None, "tf-idf", "frozen", data=str(reviews), text="words", label="verdict")
    return [dataclasses.replace(base, seed=s, split_seed=s) for s in range(3)]


def test_what_is_recorded_is_not_done_again(runs, tmp_path, capsys):
    records = tmp_path / "r.jsonl"
    assert card_study.study(runs[:1], records, jobs=1) == []
    assert card_study.study(runs, records, jobs=1) == []
    assert "3 runs, 1 of them recorded already, 0 failed" in capsys.readouterr().err
    found = study.read_records(records)
    assert sorted(r.run["seed"] for r in found) == [0, 1, 2]
    assert {r.hardware["threads"] for r in found} == {1}


def test_a_failure_is_told_with_its_command(runs, tmp_path):
    bad = dataclasses.replace(runs[0], size=100_000)
    (told,) = card_study.study([bad, runs[1]], tmp_path / "r.jsonl", jobs=1)
    assert "larger than the data" in told
    assert told.startswith("klnorm run")
    assert len(study.read_records(tmp_path / "r.jsonl")) == 1


def test_other_weights_are_another_run(tmp_path, runs):
    encoder = small.encoder(tmp_path / "small")
    asked = dataclasses.replace(runs[0], encoder=str(encoder), size=40)
    records = tmp_path / "r.jsonl"
    card_study.study([asked], records, jobs=1)
    weights = encoder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4] ^= 1  # the lowest bit of the last weight
    weights.write_bytes(content)
    card_study.study([asked], records, jobs=1)
    first, second = study.read_records(records)
    assert first.encoder["sha256"] != second.encoder["sha256"]
    assert first.hash != second.hash


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
