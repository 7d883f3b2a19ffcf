"""`klnorm fisher` and `klnorm mlm-head`: options, what they print, and errors."""

import dataclasses
import inspect
import json

import pytest
from transformers import BertModel

from klnorm_lib.cli import fisher as cli_fisher
from klnorm_lib.pretraining.mlm_head import MLMHeadConfig
from klnorm_lib.probes.fisher.estimate import FisherConfig
from tests import language
from tests.cli import call


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli_fisher")
    return language.model(folder / "small"), language.corpus(folder / "wiki")


def arguments(files, out, *more):
    return ("fisher", "--model", files[0], "--text", files[1], "--out", out, "--length", 16, "--method", "loop", *more)


@pytest.mark.parametrize(
    ("command", "config"), [(cli_fisher.fisher, FisherConfig), (cli_fisher.mlm_head, MLMHeadConfig)]
)
def test_every_setting_is_an_option_with_its_default(command, config):
    options = dict(inspect.signature(command).parameters)
    del options["as_json"]
    fields = {field.name: field.default for field in dataclasses.fields(config)}
    assert options.keys() == fields.keys()
    for name, default in fields.items():
        if default is not dataclasses.MISSING:
            assert options[name].default == default, name


def test_fisher_stops_goes_on_and_refuses_another_seed(files, tmp_path):
    out = tmp_path / "out"
    stopped = call(*arguments(files, out, "--n", 30, "--minutes", 1e-9))
    assert "partial: 10 of 30 sequences" in stopped.stdout
    done = json.loads(call(*arguments(files, out, "--n", 30, "--json")).stdout)
    assert (done["done"], done["sequences"], done["model"]) == (30, 30, str(files[0].name))
    assert {"versions", "hardware", "corpora", "sha256"} <= set(done)
    assert (out / "table.json").is_file()
    refused = call(*arguments(files, out, "--n", 40, "--seed", 1), code=2)
    assert "seed is 0, not 1" in refused.stderr
    answer = json.loads(call(*arguments(files, out, "--n", 40, "--seed", 1, "--json"), code=2).stdout)
    assert "another --out" in answer["error"]


def test_a_head_is_trained_and_used(files, tmp_path):
    encoder = language.model(tmp_path / "bare")
    BertModel.from_pretrained(encoder).save_pretrained(encoder)
    bare = (encoder, files[1])
    assert "klnorm mlm-head" in call(*arguments(bare, tmp_path / "out", "--n", 2), code=2).stderr
    options = ("--model", encoder, "--text", files[1], "--out", tmp_path / "head", "--steps", 2, "--length", 16)
    assert "heldout_loss" in call("mlm-head", *options).stdout
    done = call(*arguments(bare, tmp_path / "out", "--n", 2, "--head", tmp_path / "head", "--json"))
    assert json.loads(done.stdout)["head"]["name"] == "head"


def test_what_is_not_there_is_told(files, tmp_path):
    assert "no corpus" in call(*arguments((files[0], "nowhere"), tmp_path), code=2).stderr
    assert "unknown labels" in call(*arguments(files, tmp_path, "--labels", "no"), code=2).stderr
