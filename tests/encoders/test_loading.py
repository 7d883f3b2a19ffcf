"""Where encoders come from, and what is said when they are not there."""

import pytest
import torch

from klnorm_lib import encoders
from tests import zoo


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("KLNORM_MIRROR", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An encoder folder with a tokenizer, in the layout of a mirror."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    place = tmp_path_factory.mktemp("mirror") / "models" / "org--small"
    zoo.build("bert", kind="encoder").save_pretrained(place)
    raw = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "a": 2}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(place)
    return place


def test_folder_and_mirror(folder, monkeypatch):
    model, tokenizer = encoders.load(str(folder), 3, label_names=["a", "b", "c"])
    assert model.klnorm_source.source == "folder"
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    monkeypatch.setenv("KLNORM_MIRROR", str(folder.parents[1]))
    mirrored, _ = encoders.load("org/small", 3)
    provenance = mirrored.klnorm_source.provenance()
    assert provenance["source"] == "mirror"
    assert provenance["sha256"] == model.klnorm_source.sha256
    assert str(folder.parents[1]) not in str(provenance)
    for a, b in zip(model.bert.parameters(), mirrored.bert.parameters(), strict=True):
        assert torch.equal(a, b)


def test_random_twin_differs_from_the_pretrained(folder):
    trained, _ = encoders.load(str(folder), 2)
    torch.manual_seed(1)
    twin, _ = encoders.load(f"{folder}:random", 2)
    assert twin.klnorm_source.random
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(trained.state_dict()[name], twin.state_dict()[name])


def test_one_label_is_regression(folder):
    model, _ = encoders.load(str(folder), 1)
    assert model.config.problem_type == "regression"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: encoders.load("klnorm-tinny", 2), FileNotFoundError, "KLNORM_MIRROR"),
        (lambda: encoders.load("./nowhere", 2), FileNotFoundError, "check the path"),
        (lambda: encoders.load("x", 2, source="cloud"), ValueError, "unknown source"),
        (lambda: encoders.load("x", 2, source="built-in"), ValueError, "no built-in encoder"),
        (lambda: encoders.load("org/other", 2, source="mirror"), FileNotFoundError, "KLNORM_MIRROR, which is not set"),
        (lambda: encoders.load("klnorm-nano", 0), ValueError, "at least 1"),
        (lambda: encoders.load("klnorm-nano", 2, label_names=["one"]), ValueError, "label names"),
    ],
)
def test_what_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_truncated_weights(folder, tmp_path):
    import shutil

    broken = shutil.copytree(folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(ValueError, match="corrupt or truncated"):
        encoders.load(str(broken), 2)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        encoders.load(str(broken), 2)


def test_built_in_encoder_is_what_its_name_says():
    assert "klnorm-nano" in encoders.names()
    model, tokenizer = encoders.load("klnorm-nano", 2)
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (2, 128)
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer("A film.").input_ids[0] == tokenizer.cls_token_id
