"""The command line: lists, one run, and errors that say what to do."""

import dataclasses
import inspect
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from klnorm_lib import __version__, cli
from klnorm_lib.cli import pretrain, run
from klnorm_lib.cli.run import parse_argument
from tests.study import small

runner = CliRunner()


def call(*arguments, code=0):
    result = runner.invoke(cli.app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result


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


@pytest.mark.parametrize("command", ["tasks", "methods", "encoders"])
def test_lists_parse_as_json(command):
    rows = json.loads(call(command, "--json").stdout)
    assert isinstance(rows, list)
    assert all(row["name"] for row in rows)
    plain = call(command).stdout
    assert all(row["name"] in plain for row in rows)


def test_rows_of_recordings_are_counted_without_opening_them(monkeypatch):
    from klnorm_lib.tasks import audio

    monkeypatch.setattr(audio, "decode", lambda *a: pytest.fail("a sound file was decoded"))
    rows = {row["name"]: row for row in json.loads(call("tasks", "--json").stdout)}
    assert set(rows["spoken_words"]["rows"]) == {"train", "validation", "test"}
    assert min(rows["spoken_words"]["rows"].values()) > 0
    assert rows["spoken_words"]["sources"] == ["built-in"]
    assert rows["superb_ks"]["sources"] == ["hub"]


def test_methods_tell_their_defaults():
    rows = {row["name"]: row for row in json.loads(call("methods", "--json").stdout)}
    assert rows["klnorm"]["fields"]["beta"] == 1e-3
    assert "plain" in rows
    assert all(row["description"] for row in rows.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "mrcp"), "mrpc"),
        (("--task", "mrpc", "--method", "klnrom"), "klnorm"),
        (("--task", "mrpc", "--method", "klnorm", "--method-arg", "beta"), "NAME=VALUE"),
        (("--task", "mrpc", "--method", "klnorm", "--method-arg", "beta=-1"), "beta"),
        (("--task", "mrpc", "--steps", "0"), "steps"),
        (("--data", "none.csv", "--text", "a", "--label", "b"), "there is no file"),
        ((), "klnorm tasks"),
    ],
)
def test_user_errors_say_what_to_do(options, message, tmp_path):
    result = call("run", *options, "--records", tmp_path / "r.jsonl", code=2)
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_unknown_encoder(files, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = own(files, "--records", tmp_path / "r.jsonl")
    arguments[arguments.index("--encoder") + 1] = "./no-such-folder"
    result = call(*arguments, code=2)
    assert "no-such-folder" in result.stderr


def test_errors_as_json(tmp_path):
    result = call("run", "--task", "mrcp", "--json", "--records", tmp_path / "r.jsonl", code=2)
    assert "mrpc" in json.loads(result.stdout)["error"]


def test_broken_records_are_named_and_repaired(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"hash": ')
    result = call("report", "--records", path, code=2)
    assert "line 1" in result.stderr
    assert "--repair" in result.stderr
    call("report", "--records", path, "--repair")
    assert (tmp_path / "r.jsonl.broken").exists()


def test_report_without_records(tmp_path):
    assert "klnorm run" in call("report", "--records", tmp_path / "none.jsonl", code=2).stderr


def test_debug_shows_the_traceback(tmp_path):
    result = runner.invoke(cli.app, ["--debug", "report", "--records", str(tmp_path / "none.jsonl")])
    assert isinstance(result.exception, FileNotFoundError)


SMALL_STUDY = """
common: {steps: 2, batch_size: 8, evaluations: 1, max_length: 16, test_rows: 20, ood: false, device: cpu}
tuning: {draws: [100]}
arms:
  plain: {tune: {learning_rate: [1e-4, 1e-3]}}
  frozen: {method: frozen, encoder: tf-idf}
parts:
  one: {tasks: {topic_shift: [40]}, encoders: [klnorm-nano], arms: [frozen], draws: 2}
  two: {tasks: {topic_shift: [40]}, encoders: [klnorm-nano], arms: [plain], draws: 1, default: false}
  bad: {tasks: {topic_shift: [999999]}, encoders: [klnorm-nano], arms: [frozen], draws: 1, default: false}
"""


@pytest.fixture
def small_study(tmp_path):
    path = tmp_path / "few.yaml"
    path.write_text(SMALL_STUDY)
    return path


def test_study_then_done_already(small_study, tmp_path):
    records = tmp_path / "r.jsonl"
    assert "2 made" in call("study", small_study, "--records", records).stderr
    again = json.loads(call("study", small_study, "--records", records, "--json").stdout)
    assert (again["runs"], again["made"], again["recorded_before"], again["failures"]) == (2, 0, 2, [])
    assert len(records.read_text().splitlines()) == 2


def test_study_tells_failures_and_exits_with_one(small_study, tmp_path):
    options = ("study", small_study, "--records", tmp_path / "r.jsonl", "--part", "bad", "--part", "one")
    told = call(*options, code=1).stderr
    assert "2 made" in told
    assert "1 failed" in told
    assert "klnorm run --task topic_shift" in told
    assert "size 999999 is larger than the data" in told


def test_study_lists_its_runs(small_study, tmp_path):
    records = tmp_path / "r.jsonl"
    lines = call("study", small_study, "--records", records, "--dry").stdout.splitlines()
    assert [line.split()[:4] for line in lines] == [["klnorm", "run", "--task", "topic_shift"]] * 2
    tuned = call("study", small_study, "--records", records, "--part", "two", "--dry", "--json")
    assert [row["stage"] for row in json.loads(tuned.stdout)] == ["tuning", "tuning"]  # the final run waits for them
    call("study", small_study, "--records", records)
    lines = call("study", small_study, "--records", records, "--dry").stdout.splitlines()
    assert all(line.startswith("# recorded: klnorm run") for line in lines)


def test_study_remakes_an_arm_in_a_setting():
    command = ("study", "smoke", "--remake", "topic_shift/40/klnorm-nano/frozen", "--replicates", 1)
    told = json.loads(call(*command, "--json").stdout)
    assert told["holds"]
    assert told["difference"] <= told["tolerance"]
    shown = call(*command)
    assert f"{told['remade'][0]:.4f}" in shown.stdout
    assert "topic_shift/40/klnorm-nano/frozen: " in shown.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("none",), "no study 'none'"),
        (("smoke", "--engine", "slurm"), "local, dask, ray"),
        (("smoke", "--part", "none"), "has no part none"),
        (("smoke", "--remake", "trec"), "TASK/SIZE/ENCODER/ARM"),
        (("smoke", "--scheduler", "tcp://127.0.0.1:1"), "--engine dask"),
    ],
)
def test_study_errors_say_what_to_do(options, message, tmp_path):
    result = call("study", *options, "--records", tmp_path / "r.jsonl", code=2)
    assert message in result.stderr.replace("\n", " ")


def test_version_as_a_module():
    done = subprocess.run([sys.executable, "-m", "klnorm_lib", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"klnorm {__version__}"


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


def test_every_field_is_an_option():
    from klnorm_lib.pretraining.speech.pretrain import SpeechPretrainConfig
    from klnorm_lib.pretraining.text.pretrain import PretrainConfig
    from klnorm_lib.study import Run

    for command, config, own_options in (
        (run.run, Run, {"method_arg", "records", "as_json"}),
        (pretrain.pretrain, PretrainConfig, {"as_json"}),
        (pretrain.pretrain_speech, SpeechPretrainConfig, {"as_json"}),
    ):
        fields = {f.name for f in dataclasses.fields(config)} - {"method_args"}
        assert set(inspect.signature(command).parameters) - own_options == fields


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


@pytest.mark.parametrize("command", ["pretrain", "pretrain-speech"])
def test_pretrain_and_its_errors(command, tmp_path):
    result = call(command, "--corpora", tmp_path / "none", "--out", tmp_path / "out", "--json", code=2)
    assert json.loads(result.stdout)["error"]


def test_mirror_refuses_built_in_and_unknown_tasks(tmp_path):
    assert "mrpc" in call("mirror", "mrcp", "--to", tmp_path, code=2).stderr
