"""A rate in the config that nothing in the model reads is said, wherever dropout is measured or set."""

import warnings

import pytest

from klnorm_lib import Dropout, apply, effective_rates
from klnorm_lib.methods import GuidedDropout
from klnorm_lib.sites import dropout_sites
from klnorm_lib.sites.ignored import ignored_rates
from tests import zoo
from tests.matrix import architectures
from tests.probes.test_rates import freeze_attention
from tests.sites.test_sites import lora

IGNORED = {
    "text/gpt_neox": "classifier_dropout",
    "text/gpt_neo": "classifier_dropout",
    "text/llama": "classifier_dropout",  # no field of its class, but accepted
    "text/gpt2": "summary_first_dropout",
    "text/qwen2": "classifier_dropout",
    "text/mpt": "resid_pdrop",
    "audio/sew-d": "hidden_dropout",
    "audio/wav2vec2": "final_dropout",
    "image/vit": "classifier_dropout",
}


def with_rate(name, field, rate=0.37):
    config = architectures.config(name)
    setattr(config, field, rate)
    return architectures.auto_class(name).from_config(config)


@pytest.mark.parametrize("name", IGNORED)
def test_what_nothing_reads_is_said(name):
    field = IGNORED[name]
    model = with_rate(name, field)
    assert ignored_rates(model) == {field: 0.37}
    with pytest.warns(UserWarning, match=rf"config\.{field} is 0\.37, but nothing in \w+Classification reads it"):
        effective_rates(model)
    with pytest.warns(UserWarning, match=rf"config\.{field} is 0\.37"):
        report = apply(model, Dropout(p=0.2))
    assert any(f"config.{field} is 0.37" in line for line in report.changed)


def test_guided_dropout_says_it_too():
    model = with_rate("text/gpt_neox", "classifier_dropout")
    with pytest.warns(UserWarning, match=r"config\.classifier_dropout is 0\.37"):
        apply(model, GuidedDropout(rates=dict.fromkeys(dropout_sites(model), 0.1)))


READ = {
    "text/bert": ("classifier_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    "text/modernbert": ("classifier_dropout", "mlp_dropout"),
    "text/t5": ("classifier_dropout", "dropout_rate"),
    "text/bart": ("classifier_dropout", "activation_dropout"),
    "text/distilbert": ("seq_classif_dropout", "attention_dropout"),
    "audio/wav2vec2": ("feat_proj_dropout", "hidden_dropout"),
    "text/gpt2": ("embd_pdrop", "attn_pdrop"),
}


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in READ.items() for field in fields])
def test_what_is_read_is_not_said(name, field):
    assert ignored_rates(with_rate(name, field)) == {}


@pytest.mark.parametrize("name", zoo.NAMES)
def test_stock_encoders_say_nothing(name):
    model = lora(zoo.build(name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ignored_rates(model) == {}
        effective_rates(model)


def test_a_rate_of_zero_and_an_encoder_without_a_head_say_nothing():
    assert ignored_rates(with_rate("text/gpt_neox", "classifier_dropout", 0.0)) == {}
    assert ignored_rates(with_rate("text/gpt_neox", "classifier_dropout").base_model) == {}


def test_a_site_that_runs_at_another_rate_than_is_written_down_is_said():
    model = freeze_attention(zoo.build("bert"))
    dropout_sites(model)["layer.1.attention_probs"].set(0.4)
    with pytest.warns(UserWarning, match=r"layer\.1\.attention_probs: 0\.4 is written down, but 0\.1 runs"):
        effective_rates(model)
