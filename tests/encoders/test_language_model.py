"""Language models with their heads: found, refused, and given a head of their own on the frozen encoder."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel

from klnorm_lib.encoders import language_model as module
from klnorm_lib.encoders import resolve
from klnorm_lib.encoders.corruption import Corruption
from klnorm_lib.encoders.language_model import HEADS, head_parameters, load_language_model
from klnorm_lib.encoders.windows import windows
from klnorm_lib.pretraining.mlm_head import MLMHeadConfig, decode, evaluate, features, train_head
from tests import language

SHIPPED = sorted(folder.parent for folder in HEADS.glob("*/model.safetensors"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return language.corpus(tmp_path_factory.mktemp("lm") / "wiki")


@pytest.fixture(scope="module")
def headless(tmp_path_factory):
    folder = language.model(tmp_path_factory.mktemp("lm") / "headless")
    BertModel.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(headless, text, tmp_path_factory):
    out = tmp_path_factory.mktemp("lm") / "head"
    settings = MLMHeadConfig(str(headless), (str(text),), str(out), 150, 8, 16, learning_rate=1e-2)
    return out, train_head(settings, {"versions": {"torch": "x"}}, progress=False)


@pytest.mark.parametrize("kind", language.KINDS)
def test_the_kind_is_told_by_the_architecture(kind, tmp_path):
    model, tokenizer, told = load_language_model(str(language.model(tmp_path, kind)))
    assert told["kind"] == model.klnorm_kind == kind
    assert told["encoder"]["sha256"] == model.klnorm_source.sha256
    assert not model.training
    assert tokenizer.mask_token_id is not None


def test_built_in_encoders_come_with_their_heads():
    model, tokenizer, told = load_language_model("klnorm-nano")
    assert told["head"] is None
    assert set(head_parameters(model)) == {
        "cls.predictions.bias",
        *(f"cls.predictions.transform.{part}" for part in ("dense.weight", "dense.bias")),
        *(f"cls.predictions.transform.LayerNorm.{part}" for part in ("weight", "bias")),
    }
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
    ids = tokenizer("the president of the united [MASK] spoke", return_tensors="pt")
    place = ids["input_ids"][0] == tokenizer.mask_token_id
    assert tokenizer.decode(model(**ids).logits[0, place].topk(10).indices[0]).split().count("states") == 1


def test_an_encoder_without_its_head_is_refused_and_told_what_to_do(headless):
    with pytest.raises(ValueError, match=r"cls\.predictions\.\S+ is missing.*klnorm mlm-head --model"):
        load_language_model(str(headless))


def test_weights_drawn_afresh_need_no_head(headless):
    model, _, told = load_language_model(f"{headless}:random")
    assert told["head"] is None
    assert head_parameters(model)


def test_kinds_that_are_not_there(tmp_path):
    folder = language.model(tmp_path)
    with pytest.raises(ValueError, match="unknown kind of language model 'mask'"):
        load_language_model(str(folder), kind="mask")
    with pytest.raises(ValueError, match="has no seq2seq language model"):
        load_language_model(str(folder), kind="seq2seq")


def test_a_trained_head_predicts_held_out_text_better(trained):
    out, summary = trained
    assert summary["heldout_loss"] < summary["heldout_loss_frequencies"] - 0.05  # nats, of a random encoder
    assert summary["heldout_loss"] < summary["heldout_loss_fresh"] - 0.05
    assert json.loads((out / "training.json").read_text()) == json.loads(json.dumps(summary))
    assert summary["versions"] == {"torch": "x"}
    assert {t.dtype for t in load_file(out / "model.safetensors").values()} == {torch.float16}


def test_the_encoder_stays_as_it_was_and_the_loss_is_that_of_what_was_saved(trained, headless, text):
    out, summary = trained
    model, tokenizer, told = load_language_model(str(headless), head=out)
    before = load_file(headless / "model.safetensors")
    assert all(torch.equal(p, before[name]) for name, p in model.base_model.named_parameters())
    assert told["head"]["trained_on"] == resolve(str(headless)).sha256
    assert "note" not in told["head"]
    assert len(told["head"]["sha256"]) == 64
    held = windows([text], tokenizer, 256, 16, part="heldout")
    assert evaluate(model, Corruption("masked", tokenizer), held) == pytest.approx(summary["heldout_loss"], abs=1e-3)


def test_logits_of_masked_places_alone_are_those_of_the_whole_model(trained, headless, text):
    model, tokenizer, _ = load_language_model(str(headless), head=trained[0])
    batch = Corruption("masked", tokenizer)(windows([text], tokenizer, 4, 16), 0)
    hidden, targets = features(model, batch)
    with torch.no_grad():
        few = decode(model, hidden)
        whole = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    chosen = batch["labels"] != -100
    torch.testing.assert_close(few, whole[chosen], rtol=0.05, atol=0.05)  # bfloat16
    assert torch.equal(targets, batch["labels"][chosen])


def test_training_is_repeatable(headless, text, tmp_path):
    made = []
    for name in ("a", "b"):
        settings = MLMHeadConfig(str(headless), (str(text),), str(tmp_path / name), 3, 4, 16)
        train_head(settings, progress=False)
        made.append(load_file(tmp_path / name / "model.safetensors"))
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_a_head_of_another_shape_or_encoder_is_noticed(trained, headless, tmp_path):
    out, _ = trained
    weights = load_file(out / "model.safetensors")
    (tmp_path / "training.json").write_text((out / "training.json").read_text())
    save_file({**weights, "cls.predictions.bias": torch.zeros(7)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"cls\.predictions\.bias is \(7,\), and should be \(90,\)"):
        load_language_model(str(headless), head=tmp_path)
    other = language.model(tmp_path / "other", seed=3)
    BertModel.from_pretrained(other).save_pretrained(other)
    _, _, told = load_language_model(str(other), head=out)
    assert told["head"]["note"] == "trained on other weights of the encoder"


def test_a_head_that_ships_is_found_by_the_encoders_name(trained, headless, tmp_path, monkeypatch):
    folder = tmp_path / "models" / "org--enc"
    folder.parent.mkdir()
    folder.symlink_to(headless)
    monkeypatch.setenv("KLNORM_MIRROR", str(tmp_path))
    monkeypatch.setattr(module, "HEADS", Path(tmp_path))
    (tmp_path / "org--enc").symlink_to(trained[0])
    _, _, told = load_language_model("org/enc")
    assert told["head"]["name"] == "org--enc"


def test_other_heads_than_berts_are_not_trained(text, tmp_path):
    folder = language.model(tmp_path / "gpt", "causal")
    with pytest.raises(ValueError, match="encoders of type bert"):
        train_head(MLMHeadConfig(str(folder), (str(text),), str(tmp_path / "out"), 1, 1, 16), progress=False)
    with pytest.raises(ValueError, match="at least 1"):
        MLMHeadConfig("klnorm-nano", ("text",), "out", steps=0)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_what_ships_has_a_card_with_its_numbers(folder):
    summary = json.loads((folder / "training.json").read_text())
    card = (folder / "README.md").read_text()
    for key in ("heldout_loss_frequencies", "heldout_loss"):
        assert f"{summary[key]:.2f}" in card, key
    assert f"{summary['masked_tokens']:,}" in card
    assert summary["heldout_loss"] < summary["heldout_loss_frequencies"] - 0.5
    weights = load_file(folder / "model.safetensors")
    assert sum(t.numel() for t in weights.values()) == summary["parameters"]
    assert all(torch.isfinite(t).all() for t in weights.values())
    assert (folder / "model.safetensors").stat().st_size < 16_000_000
