"""Dropout sets the rates that it was asked for, measures them, and is loud when it cannot."""

import copy
import dataclasses
import json
import math
import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import BertForSequenceClassification, ResNetConfig, ResNetForImageClassification

from klnorm_lib import Dropout, KLNorm, apply, effective_rates
from klnorm_lib.methods import from_dict, to_dict
from klnorm_lib.sites import dropout_sites
from tests import zoo
from tests.probes.test_rates import freeze_attention
from tests.sites.test_sites import EXPECTED, lora


@pytest.mark.parametrize(("name", "attention"), zoo.CASES)
def test_one_rate_for_every_site(name, attention):
    model = zoo.build(name, attention)
    report = apply(model, Dropout(p=0.05))
    assert effective_rates(model) == dict.fromkeys(EXPECTED[name], 0.05)
    assert len(report.changed) == len(EXPECTED[name])
    assert report.added_parameters == 0


@pytest.mark.parametrize("name", zoo.NAMES)
def test_a_rate_a_site_under_lora(name):
    model = lora(zoo.build(name))
    rates = {site: 0.01 * (i + 2) for i, site in enumerate(EXPECTED[name])}
    apply(model, Dropout(rates=rates))
    assert effective_rates(model) == pytest.approx(rates)


def test_named_sites_only():
    model = zoo.build("bert", hidden_dropout_prob=0.2)
    before = effective_rates(model)
    report = apply(model, Dropout(rates={"layer.1.ffn_output": 0.0, "layer.0.attention_probs": 0.3}))
    wanted = before | {"layer.0.attention_probs": 0.3, "layer.1.ffn_output": 0.0}
    assert effective_rates(model) == wanted
    assert [line.split(": ", 1)[1] for line in report.changed] == [
        "layer.0.attention_probs: 0.1 -> 0.3",
        "layer.1.ffn_output: 0.2 -> 0",
    ]


def test_head_and_evaluation_stay_as_they_were():
    model = zoo.build("bert", classifier_dropout=0.4)
    inputs = zoo.batch(model)
    before = model(**inputs).logits
    apply(model, Dropout(p=0.5))
    assert model.dropout.p == 0.4
    assert torch.equal(model(**inputs).logits, before)


def test_no_dropout_makes_training_deterministic():
    model = zoo.build("bert", classifier_dropout=0.0)
    apply(model, Dropout(p=0.0))
    model.train()
    inputs = zoo.batch(model)
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)


def test_rate_one_removes_a_block_in_training():
    model = zoo.build("bert", classifier_dropout=0.0)
    named = {"layer.1.ffn_output": 1.0}
    apply(model, Dropout(rates=dict.fromkeys(EXPECTED["bert"], 0.0) | named))
    model.train()
    inputs = zoo.batch(model)
    before = model(**inputs).logits
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight.normal_()
    assert torch.equal(model(**inputs).logits, before)


def test_it_composes_with_a_penalty():
    model = zoo.build("bert")
    apply(model, KLNorm(placement="internal"), Dropout(p=0.02))
    assert set(effective_rates(model).values()) == {0.02}
    model.train()(**zoo.batch(model)).loss.backward()


@pytest.mark.parametrize("p", [-0.1, 1.0001, 2, math.nan, math.inf, -math.inf])
def test_rates_outside_the_unit_interval(p):
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        Dropout(p=p)
    with pytest.raises(ValueError, match=r"the rate of embeddings must lie in \[0, 1\]"):
        Dropout(rates={"embeddings": p})


@pytest.mark.parametrize("p", ["0.1", True, [0.1], 1j])
def test_rates_that_are_no_numbers(p):
    with pytest.raises(TypeError, match="must be a number between 0 and 1"):
        Dropout(p=p)


def test_no_rate_or_two():
    with pytest.raises(ValueError, match="needs a rate"):
        Dropout(p=None)
    with pytest.raises(ValueError, match="names no site"):
        Dropout(rates={})
    with pytest.raises(ValueError, match="p or rates, not both"):
        Dropout(p=0.3, rates={"embeddings": 0.1})
    with pytest.raises(TypeError, match="must map site names to rates"):
        Dropout(rates=[0.1, 0.2])


def test_unknown_site_lists_those_there_are():
    model = zoo.build("distilbert")
    with pytest.raises(ValueError, match=r"layer\.0\.attention_output, layer\.9.*this model has embeddings, layer\.0"):
        apply(model, Dropout(rates={"embeddings": 0.3, "layer.9.ffn_output": 0.1, "layer.0.attention_output": 0.1}))
    assert set(effective_rates(model).values()) == {0.1}


def test_a_model_without_known_sites():
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=2)
    with pytest.raises(ValueError, match="no known dropout site in ResNetModel.*none was found"):
        apply(ResNetForImageClassification(config), Dropout())


def test_a_rate_frozen_at_construction_is_refused_and_taken_back():
    model = freeze_attention(zoo.build("bert"))
    message = r"did not take at 1 place.*layer\.1\.attention_probs: 0\.1 runs in .*self, 0\.3 was set"
    with pytest.raises(RuntimeError, match=message):
        apply(model, Dropout(p=0.3))
    assert {site.get() for site in dropout_sites(model).values()} == {0.1}
    with pytest.raises(RuntimeError, match="did not take"):
        Dropout(p=0.3).attach(model)
    assert {site.get() for site in dropout_sites(model).values()} == {0.1}
    apply(model, Dropout(rates={"layer.0.attention_probs": 0.3}))  # the other layer reads its rate


def test_a_companion_that_did_not_take_is_refused():
    model = zoo.build("wav2vec2")

    class Fixed(torch.nn.Dropout):
        def forward(self, x):
            return F.dropout(x, 0.4, self.training)

    model.wav2vec2.feature_projection.dropout = Fixed(0.4)
    with pytest.raises(RuntimeError, match="embeddings: 0.4 runs in feature_projection.dropout, 0.2 was set"):
        apply(model, Dropout(p=0.2))


def test_without_weights_the_rates_are_set_unmeasured():
    with torch.device("meta"):
        model = BertForSequenceClassification(zoo.build("bert").config)
    assert len(Dropout(p=0.3).attach(model)) == 7
    assert {site.get() for site in dropout_sites(model).values()} == {0.3}


@pytest.mark.parametrize(
    "method", [Dropout(), Dropout(p=0), Dropout(p=np.float32(0.5)), Dropout(rates={"embeddings": 1, "layer.0.x": 0.25})]
)
def test_round_trips(method):
    assert from_dict(json.loads(json.dumps(to_dict(method)))) == method
    for twin in (copy.deepcopy(method), pickle.loads(pickle.dumps(method)), dataclasses.replace(method)):
        assert twin == method
        assert hash(twin) == hash(method)


def test_a_method_cannot_be_changed():
    given = {"embeddings": 0.2}
    method = Dropout(rates=given)
    given["embeddings"] = 0.9
    assert method.rates == {"embeddings": 0.2}
    assert method.p is None
    with pytest.raises(TypeError, match="cannot be changed"):
        method.rates["embeddings"] = 0.5
    with pytest.raises(TypeError, match="cannot be changed"):
        method.rates.update(embeddings=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.p = 0.5
