"""Errors that say what to do, the version, and options for every setting."""

import dataclasses
import inspect
import json
import subprocess
import sys

import pytest

from klnorm_lib import __version__, cli
from klnorm_lib.cli import pretrain, run
from tests.cli import call, runner


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


def test_errors_as_json(tmp_path):
    result = call("run", "--task", "mrcp", "--json", "--records", tmp_path / "r.jsonl", code=2)
    assert "mrpc" in json.loads(result.stdout)["error"]


def test_debug_shows_the_traceback(tmp_path):
    result = runner.invoke(cli.app, ["--debug", "report", "--records", str(tmp_path / "none.jsonl")])
    assert isinstance(result.exception, FileNotFoundError)


def test_version_as_a_module():
    done = subprocess.run([sys.executable, "-m", "klnorm_lib", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"klnorm {__version__}"


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
