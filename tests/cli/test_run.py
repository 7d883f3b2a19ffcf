"""`klnorm run`: one run, recorded once."""

import dataclasses
import inspect
import json

import pytest

from klnorm_lib.cli import run
from klnorm_lib.cli.run import parse_argument
from tests.cli import call
from tests.study import small


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    return small.encoder(folder / "small"), small.csv(folder / "reviews.csv")


def own(files, *more):
    encoder, reviews = files
    options = ["--data", reviews, "--text", "words", "--label", "verdict", "--encoder", encoder, "--device", "cpu"]
    return ["run", *options, "--steps", 2, "--evaluations", 1, "--batch-size", 8, *more]


def record_hash(records):
    return json.loads(records.read_text().splitlines()[0])["hash"][:12]


def test_run_then_done_already(files, tmp_path):
    records = tmp_path / "r.jsonl"
    first = call(*own(files, "--method", "klnorm", "--method-arg", "beta=1e-2", "--records", records))
    assert "best so far" in first.stderr
    assert "test" in first.stdout
    again = call(*own(files, "--method", "klnorm", "--method-arg", "beta=0.01", "--records", records))
    assert "already done" in again.stderr
    assert again.stdout == first.stdout
    table = call("report", "--records", records)
    assert "klnorm(beta=0.01)" in table.stdout
    assert json.loads(call("report", "--records", records, "--json").stdout)[0]["method"]["fields"]["beta"] == 0.01
    assert record_hash(records) in call("report", "--records", records, "--every").stdout
    assert "| klnorm(beta=0.01) |" in call("report", "--records", records, "--markdown").stdout


def test_run_on_a_built_in_task_measures_out_of_domain(files, tmp_path):
    from klnorm_lib import tasks

    name = next(name for name in tasks.names() if tasks.spec(name).built_in and tasks.spec(name).ood)
    result = call(
        *("run", "--task", name, "--size", 40, "--encoder", files[0], "--steps", 2, "--evaluations", 1, "--json"),
        *("--records", tmp_path / "r.jsonl", "--device", "cpu"),
    )
    record = json.loads(result.stdout)
    assert record["already_done"] is False
    assert record["task"]["source"] == "built-in"
    assert set(record["ood"]) == set(tasks.spec(name).ood)
    assert record["rows"]["train"] + record["rows"]["validation"] == 40
    assert 0 <= record["calibration"]["test"]["ece"] <= 1


def test_unknown_encoder(files, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = own(files, "--records", tmp_path / "r.jsonl")
    arguments[arguments.index("--encoder") + 1] = "./no-such-folder"
    result = call(*arguments, code=2)
    assert "no-such-folder" in result.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("beta=1e-3", ("beta", 1e-3)),
        ("form=B", ("form", "B")),
        ("rank=4", ("rank", 4)),
        ("flag=true", ("flag", True)),
        ("flag=False", ("flag", False)),
        ("rates={'embeddings': 0.1}", ("rates", {"embeddings": 0.1})),
        ("x=a=b", ("x", "a=b")),
    ],
)
def test_method_arguments_are_literals(text, expected):
    assert parse_argument(text) == expected


def test_run_options_have_the_defaults_of_a_run():
    from klnorm_lib.study import Run

    options = inspect.signature(run.run).parameters
    for field in dataclasses.fields(Run):
        if field.name in options and field.name not in ("task", "encoder", "learning_rate"):
            assert options[field.name].default == field.default


def test_a_learning_rate_is_chosen_that_suits_the_encoder(files, tmp_path):
    from klnorm_lib.encoders import sources
    from klnorm_lib.study import Run
    from klnorm_lib.study.spec import command_of

    assert set(sources._SMALL) == set(sources.names())
    assert sources.learning_rate("klnorm-tiny:random") == sources.learning_rate("klnorm-tiny") > 1e-4
    call(*own(files, "--records", tmp_path / "r.jsonl"))
    made = json.loads((tmp_path / "r.jsonl").read_text())["run"]
    assert made["learning_rate"] == sources.LEARNING_RATE == Run("mrpc", "x").learning_rate
    # The command of a record names the rate whenever `klnorm run` would take another one.
    assert "--learning-rate" not in command_of(made)
    assert "--learning-rate 2e-05" in command_of(Run("mrpc", "klnorm-tiny").to_dict())
    assert "--learning-rate" not in command_of(Run("mrpc", "klnorm-tiny", learning_rate=3e-4).to_dict())
    assert "--learning-rate" not in command_of(Run("mrpc", "klnorm-tiny", "frozen").to_dict())
