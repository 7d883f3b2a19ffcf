"""Weights that train are float32: what is said of others, and what our encoders declare."""

import json
import warnings

import pytest
import torch
from transformers import AutoModelForSequenceClassification, Wav2Vec2ForSequenceClassification

import klnorm_lib
from klnorm_lib import VIB, KLNorm, MLPHead, NormHead, apply
from klnorm_lib.encoders import names, sources
from klnorm_lib.pretraining.dtype import declare_float32
from tests import zoo

HEADS = [KLNorm(), KLNorm(form="A"), KLNorm(placement="internal"), VIB(bottleneck=4), NormHead(), MLPHead()]


@pytest.mark.parametrize("name", names())
def test_a_stock_script_loads_a_shipped_encoder_in_float32(name):
    folder = sources.HERE / name
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    auto = {"wav2vec2": Wav2Vec2ForSequenceClassification}.get(
        json.loads((folder / "config.json").read_text())["model_type"], AutoModelForSequenceClassification
    )
    assert {p.dtype for p in auto.from_pretrained(folder).parameters()} == {torch.float32}


def test_an_encoder_written_in_float16_is_declared_float32(tmp_path):
    model = zoo.build("bert")
    model.half().save_pretrained(tmp_path)
    declare_float32(tmp_path)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).dtype == torch.float32


def test_apply_refuses_to_train_float16_weights_and_leaves_the_model_as_it_was():
    model = zoo.build("bert").half()
    before = type(model)
    with pytest.raises(ValueError, match=r"float16 .*dtype=torch.float32"):
        apply(model, KLNorm())
    assert type(model) is before


def test_apply_warns_of_bfloat16_weights_and_not_of_float32_ones():
    with pytest.warns(UserWarning, match=r"bfloat16 .*dtype=torch.float32"):
        apply(zoo.build("bert").bfloat16(), KLNorm())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply(zoo.build("bert"), KLNorm())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", HEADS, ids=str)
def test_layers_beside_a_frozen_half_precision_model_train_in_float32(method, dtype):
    model = zoo.build("bert").to(dtype).requires_grad_(False)
    report = apply(model, method)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) >= report.added_parameters
    assert {p.dtype for p in trained} == {torch.float32}
    model.train()(**zoo.batch(model)).loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in trained)


def test_a_saved_model_opens_in_float16_to_predict_and_says_so_when_it_is_trained(tmp_path):
    model = zoo.build("bert")
    apply(model, KLNorm())
    model.half().save_pretrained(tmp_path)
    loaded = klnorm_lib.load(tmp_path)
    batch = zoo.batch(loaded)
    assert loaded.half().eval()(**batch).logits.isfinite().all()
    with pytest.raises(ValueError, match=r"float16 .*dtype=torch.float32"):
        loaded.train()(**batch)
