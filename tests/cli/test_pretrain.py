"""`klnorm pretrain` and `klnorm pretrain-speech` refuse what is not there."""

import json

import pytest

from tests.cli import call


@pytest.mark.parametrize("command", ["pretrain", "pretrain-speech"])
def test_pretrain_and_its_errors(command, tmp_path):
    result = call(command, "--corpora", tmp_path / "none", "--out", tmp_path / "out", "--json", code=2)
    assert json.loads(result.stdout)["error"]
