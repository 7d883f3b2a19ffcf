"""Dropout where an architecture has none: stated, measured, saved, copied, undone."""

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

from klnorm_lib import Dropout, GuidedDropout, KLNorm, apply, effective_rates, load
from klnorm_lib.methods import GaussianDropout, Mixout, from_dict, to_dict
from klnorm_lib.probes.missing import missing_places
from klnorm_lib.sites import dropout_sites
from tests import zoo
from tests.matrix import architectures, dropouts
from tests.sites.test_scores import random_fisher
from tests.sites.test_sites import lora

_LAYERS = ["layer.{}.attention_output", "layer.{}.ffn_output"]
_ALL = ["embeddings", *(kind.format(i) for i in range(2) for kind in _LAYERS)]
MISSING = {
    "text/llama": _ALL,
    "text/gemma3_text": _ALL,
    "text/qwen3": _ALL,
    "text/mixtral": _ALL,
    "text/albert": ["layer.0.ffn_output"],
    "text/distilbert": [f"layer.{i}.attention_output" for i in range(2)],
    "text/modernbert": _ALL[1:],
    "text/opt": ["embeddings"],
    "image/dinov2": _ALL[1:],
    "text/bert": [],
    "text/t5": [],
    "audio/wav2vec2": [],
    "image/vit": [],
}


def seen(name, model):
    return dropouts.measured_rates(model, architectures.batch(name, model, rows=dropouts.ROWS))


@pytest.mark.parametrize("name", MISSING)
def test_where_dropout_is_missing(name):
    assert list(missing_places(architectures.build(name))) == MISSING[name]


@pytest.mark.parametrize("name", [name for name, missing in MISSING.items() if missing])
def test_what_is_added_runs_at_its_rate_and_is_saved(name, tmp_path):
    model = architectures.build(name)
    batch = architectures.batch(name, model)
    logits, keys = model(**batch).logits, list(model.state_dict())
    wanted = GuidedDropout.from_fisher(random_fisher(model), p_lower=0.02, p_upper=0.5, model=model, add_missing=True)
    report = apply(model, wanted)
    assert set(MISSING[name]) <= set(wanted.rates) == set(dropout_sites(model))
    assert sum(": added -> " in line for line in report.changed) == len(MISSING[name])
    assert report.added_parameters == 0
    assert list(model.state_dict()) == keys
    assert torch.equal(model(**batch).logits, logits)
    assert seen(name, model) == pytest.approx(wanted.rates, abs=1e-6)
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert seen(name, again) == pytest.approx(wanted.rates, abs=1e-6)
    assert torch.equal(again(**batch).logits, logits)


def test_attention_maps_and_hidden_states_are_still_given_out():
    model, plain = architectures.build("text/llama"), architectures.build("text/llama")
    apply(model, Dropout(p=0.3, add_missing=True))
    for each in (model, plain):
        each.set_attn_implementation("eager")
    batch = architectures.batch("text/llama", model)
    found, wanted = (each(**batch, output_attentions=True, output_hidden_states=True) for each in (model, plain))
    assert [a.shape for a in found.attentions] == [a.shape for a in wanted.attentions]
    torch.testing.assert_close(found.attentions, wanted.attentions)
    torch.testing.assert_close(found.hidden_states, wanted.hidden_states)


def test_only_named_places_get_one():
    model = architectures.build("text/llama")
    apply(model, Dropout(rates={"layer.1.ffn_output": 0.3}, add_missing=True))
    assert effective_rates(model) == {"layer.0.attention_probs": 0, "layer.1.attention_probs": 0,
                                      "layer.1.ffn_output": 0.3}  # fmt: skip


def test_without_the_argument_the_error_names_it():
    with pytest.raises(ValueError, match=r"unknown dropout site layer\.1\.ffn_output.*add_missing=True adds"):
        apply(architectures.build("text/llama"), Dropout(rates={"layer.1.ffn_output": 0.3}))


def test_the_argument_changes_nothing_where_nothing_is_missing():
    model = zoo.build("bert")
    rates = effective_rates(model)
    apply(model, Dropout(p=0.2, add_missing=True))
    assert effective_rates(model) == dict.fromkeys(rates, 0.2)


def test_architectures_without_any_dropout_get_some():
    model = architectures.build("text/diffllama")
    with pytest.raises(ValueError, match="no known dropout site"):
        dropout_sites(model)
    apply(model, Dropout(p=0.3, add_missing=True))
    assert effective_rates(model) == dict.fromkeys(_ALL, 0.3)


def test_a_failed_apply_takes_it_away_again():
    model = architectures.build("text/llama")
    classes = [type(m) for m in model.modules()]
    with pytest.raises(ValueError, match="unknown dropout site nowhere"):
        apply(model, Dropout(rates={"layer.1.ffn_output": 0.3, "nowhere": 0.1}, add_missing=True))
    assert [type(m) for m in model.modules()] == classes
    assert list(missing_places(model)) == _ALL


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies_keep_it_and_have_their_own(how):
    model = architectures.build("text/llama")
    apply(model, Dropout(p=0.3, add_missing=True))
    other = how(model)
    dropout_sites(model)["embeddings"].set(0.1)
    assert seen("text/llama", other) == pytest.approx(dict.fromkeys(dropout_sites(model), 0.3))


@pytest.mark.parametrize("reentrant", [True, False])
def test_under_gradient_checkpointing_the_masks_are_drawn_again(reentrant):
    gradients = []
    for checkpointed in (False, True):
        model = architectures.build("text/llama")
        apply(model, Dropout(p=0.3, add_missing=True))
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model.train()
        torch.manual_seed(5)
        model(**architectures.batch("text/llama", model)).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients)


def test_a_compiled_model_drops():
    model = architectures.build("text/llama")
    apply(model, Dropout(rates={"layer.1.ffn_output": 1.0}, add_missing=True))
    plain = architectures.build("text/llama")
    plain.model.layers[1].mlp.register_forward_hook(lambda m, args, out: torch.zeros_like(out))
    batch = architectures.batch("text/llama", model)
    compiled = torch.compile(model.train(), backend="eager")
    torch.testing.assert_close(compiled(**batch).logits, plain.train()(**batch).logits)


def test_under_lora_what_the_adapter_adds_is_dropped_too():
    model = lora(architectures.build("text/llama"), modules_to_save=["score"], target_modules=["o_proj"])
    apply(model, Dropout(p=0.3, add_missing=True))
    assert effective_rates(model) == dict.fromkeys(dropout_sites(model), 0.3)
    block = model.get_base_model().model.layers[0].self_attn
    before = F.dropout
    shapes = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "dropout", lambda x, *a, **k: shapes.append(x.shape) or before(x, *a, **k))
        block.added_dropout.train()(torch.ones(2, 3))
    assert shapes == [(2, 3)]


def test_gaussian_noise_can_be_added_too(tmp_path):
    model = architectures.build("text/llama")
    apply(model, GaussianDropout(p=0.3, add_missing=True))
    assert effective_rates(model) == dict.fromkeys(dropout_sites(model), 0.3)
    model.save_pretrained(tmp_path)
    assert effective_rates(load(tmp_path)) == dict.fromkeys(dropout_sites(model), 0.3)


def test_beside_a_penalty_inside():
    model = architectures.build("text/llama")
    apply(model, KLNorm(beta=0.1, placement="internal"), Dropout(p=0.3, add_missing=True))
    assert effective_rates(model) == dict.fromkeys(dropout_sites(model), 0.3)
    model.train()(**architectures.batch("text/llama", model)).loss.backward()


@pytest.mark.parametrize("order", [1, -1])
def test_beside_mixout(order):
    model = architectures.build("text/llama")
    apply(model, *[Mixout(0.5), Dropout(p=0.3, add_missing=True)][::order])
    assert set(_ALL) < set(effective_rates(model))
    assert set(effective_rates(model).values()) == {0.3}


def test_an_exported_model_predicts_as_before():
    model = architectures.build("text/distilbert")
    apply(model, Dropout(p=0.3, add_missing=True))
    batch = {k: v for k, v in architectures.batch("text/distilbert", model).items() if k != "labels"}
    exported = torch.export.export(model.eval(), (), batch).module()
    torch.testing.assert_close(exported(**batch).logits, model(**batch).logits, atol=1e-5, rtol=0)


def test_a_block_replaced_after_apply_is_noticed():
    model = architectures.build("text/llama")
    apply(model, Dropout(p=0.3, add_missing=True))
    model.model.layers[1].mlp = architectures.build("text/llama").model.layers[1].mlp
    with pytest.raises(RuntimeError, match="no longer there.*AddedDropout"):
        model.train()(**architectures.batch("text/llama", model))


def test_saying_so_survives_a_dictionary():
    method = Dropout(p=0.3, add_missing=True)
    assert from_dict(to_dict(method)) == method
    old = {key: value for key, value in to_dict(Dropout(p=0.3)).items() if key != "add_missing"}
    assert from_dict(old) == Dropout(p=0.3)
    with pytest.raises(TypeError, match="add_missing must be True or False"):
        Dropout(add_missing="yes")


def test_on_the_meta_device_there_is_nothing_to_try():
    with torch.device("meta"):
        model = architectures.build("text/llama")
    with pytest.raises(ValueError, match="add_missing needs a model with weights"):
        apply(model.to("meta"), Dropout(add_missing=True))
