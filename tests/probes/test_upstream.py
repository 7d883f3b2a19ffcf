"""Which tensors are upstream of a dropout site, seen in a forward pass, is what the published names say, and more."""

import dataclasses
import gc
import pickle
import re

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForPreTraining, AutoModelForSeq2SeqLM

from klnorm_lib import GuidedDropout, apply, effective_rates, load
from klnorm_lib.probes import diagonal_fisher
from klnorm_lib.probes.fisher.table import FisherTable
from klnorm_lib.probes.upstream import site_tensors, upstream_tensors
from klnorm_lib.sites import dropout_sites, encoder_of
from klnorm_lib.sites.names import tensor_sites
from klnorm_lib.sites.scores import AGGREGATIONS, site_scores
from tests import zoo
from tests.matrix import architectures
from tests.sites.test_scores import random_fisher
from tests.sites.test_sites import lora

# WavLM's attention is one operation, output projection included; wav2vec2-layer normalises first.
SEEN_AS_NAMED = [name for name in zoo.NAMES if name not in ("wavlm", "wav2vec2-layer")]

_LINEAR = ("weight", "bias")


def _of(*modules):
    return [f"{module}.{kind}" for module in modules for kind in _LINEAR]


BY_HAND = {
    "text/gpt2": {
        "embeddings": ["wte.weight", "wpe.weight"],
        "layer.1.attention_probs": _of("h.1.ln_1", "h.1.attn.c_attn"),
        "layer.1.attention_output": _of("h.1.attn.c_proj"),
        "layer.1.ffn_output": _of("h.1.ln_2", "h.1.mlp.c_proj"),
    },
    "text/llama": {
        "layer.1.attention_probs": [
            "layers.1.input_layernorm.weight", *(f"layers.1.self_attn.{x}_proj.weight" for x in "qkv")
        ],
    },
    # The gate and what it gates run into one dropout; the first layer has no normalisation before its attention.
    "text/gte": {"layer.0.ffn_hidden": [f"layers.0.mlp.{x}_proj.weight" for x in ("gate", "up")]},
    "text/modernbert": {
        "layer.0.attention_probs": ["layers.0.attn.Wqkv.weight"],
        "layer.1.attention_probs": ["layers.1.attn.Wqkv.weight"],
        "layer.0.ffn_hidden": ["layers.0.mlp_norm.weight", "layers.0.mlp.Wi.weight"],
    },
    # One rate of the layer drops both blocks' outputs.
    "text/opt": {
        "layer.0.ffn_output": _of(*(f"decoder.layers.0.{x}" for x in ("self_attn.out_proj", "final_layer_norm", "fc2")))
    },
    # One layer, run twice: its tensors count once.
    "text/albert": {
        "layer.0.attention_output": _of(
            *(f"encoder.albert_layer_groups.0.albert_layers.0.attention.{x}" for x in ("dense", "LayerNorm"))
        )
    },
    "image/vit": {
        "embeddings": [*_of("embeddings.patch_embeddings.projection"), "embeddings.cls_token",
                       "embeddings.position_embeddings"],
        "layer.1.ffn_output": _of("layers.1.attention.o_proj", "layers.1.layernorm_after", "layers.1.mlp.fc2"),
    },
    "audio/whisper": {"layer.0.ffn_hidden": _of("layers.0.final_layer_norm", "layers.0.fc1")},
}  # fmt: skip


@pytest.mark.parametrize("name", SEEN_AS_NAMED)
def test_what_is_seen_is_what_is_published(name):
    model = zoo.build(name)
    named = tensor_sites(n for n, _ in encoder_of(model).named_parameters())
    seen = upstream_tensors(model)
    assert list(seen) == list(dropout_sites(model))
    assert {(n, site) for site, names in seen.items() for n in names} == {(n, s) for n, s in named.items() if s}


def test_layers_that_normalise_first_give_each_normalisation_to_the_draw_that_follows():
    seen = upstream_tensors(zoo.build("wav2vec2-layer"))
    assert "encoder.layers.1.layer_norm.weight" in seen["layer.1.attention_probs"]
    assert "encoder.layers.1.final_layer_norm.weight" in seen["layer.1.ffn_hidden"]


@pytest.mark.parametrize("name", BY_HAND)
def test_other_architectures_by_hand(name):
    seen = upstream_tensors(architectures.build(name))
    for site, names in BY_HAND[name].items():
        assert sorted(seen[site]) == sorted(names), site


def test_a_matrix_that_encoder_and_decoder_share_counts_for_both():
    seen = upstream_tensors(architectures.build("text/t5"))
    assert "shared.weight" in seen["encoder.embeddings"]
    assert "shared.weight" in seen["decoder.embeddings"]
    assert not any("relative_attention_bias" in n for names in seen.values() for n in names)  # the first layer's alone


def test_looking_leaves_rates_and_weights_as_they_were():
    model = architectures.build("text/gpt2")
    dropout_sites(model)["layer.1.ffn_output"].set(0.37)
    rates = {name: site.get() for name, site in dropout_sites(model).items()}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    upstream_tensors(model)
    assert {name: site.get() for name, site in dropout_sites(model).items()} == rates
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", ["text/gpt2", "image/vit", "audio/whisper"])
def test_scores_are_those_of_the_tensors(name, aggregation):
    model = architectures.build(name)
    fisher, tensors = random_fisher(model), site_tensors(model)
    (prefix,) = {n.removesuffix(e) for n in fisher for e in tensors["embeddings"][:1] if n.endswith(f".{e}")}
    scores = site_scores(fisher, aggregation, tensors)
    assert list(scores) == list(dropout_sites(model))
    for site, names in tensors.items():
        values = [fisher[prefix + n].double() for n in names]
        by_hand = {
            "tensor_mean": sum(v.mean() for v in values) / len(values),
            "mass": torch.cat([v.flatten() for v in values]).mean(),
            "sum": sum(v.sum() for v in values),
        }
        assert scores[site] == pytest.approx(float(by_hand[aggregation]), rel=1e-6)
    bare = {n.removeprefix(prefix): f for n, f in fisher.items()}
    assert site_scores(FisherTable.of(bare), aggregation, tensors) == pytest.approx(scores, rel=1e-9)


@pytest.mark.parametrize("name", ["text/gpt2", "text/t5", "text/bert"])
def test_the_fisher_of_an_encoder_with_more_layers_is_refused(name):
    model = architectures.build(name)
    fisher = random_fisher(model)
    more = {re.sub(r"\b1\b", "7", n, count=1): f for n, f in fisher.items() if re.search(r"\.1\.", n)} | fisher
    with pytest.raises(ValueError, match="has tensors that the encoder has not.* of another encoder"):
        GuidedDropout.from_fisher(more, model=model)
    wider = {n: torch.cat([f, f]) if ".1." in n else f for n, f in fisher.items()}
    with pytest.raises(ValueError, match="not of this size .* of another encoder"):
        GuidedDropout.from_fisher(wider, model=model)


LANGUAGE_MODELS = {
    "text/gpt2": AutoModelForCausalLM,
    "text/llama": AutoModelForCausalLM,
    "text/jina_embeddings_v3": AutoModelForMaskedLM,  # its tied matrix has the name of the head
    "text/albert": AutoModelForMaskedLM,
    "text/modernbert": AutoModelForMaskedLM,
    "text/funnel": AutoModelForMaskedLM,
    "text/t5": AutoModelForSeq2SeqLM,
    "text/bart": AutoModelForSeq2SeqLM,
    "audio/wav2vec2-conformer": AutoModelForPreTraining,
}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_the_fisher_of_the_pretrained_model_fits_its_classifier(name):
    model = architectures.build(name)
    pretrained = LANGUAGE_MODELS[name].from_config(architectures.config(name))
    method = GuidedDropout.from_fisher(random_fisher(pretrained))
    assert method.rates is None
    apply(model, method)
    assert set(effective_rates(model)) == set(dropout_sites(model))
    assert len(set(effective_rates(model).values())) == len(dropout_sites(model))


def test_a_fisher_that_lacks_a_tensor_is_refused_by_its_name():
    model = architectures.build("text/gpt2")
    fisher = {n: f for n, f in random_fisher(model).items() if "h.1.attn.c_proj.bias" not in n}
    with pytest.raises(ValueError, match=r"leaves out tensors of the encoder \(h\.1\.attn\.c_proj\.bias\)"):
        GuidedDropout.from_fisher(fisher, model=model)


@pytest.mark.parametrize(
    "name", ["text/gpt2", "text/llama", "text/modernbert", "text/t5", "audio/whisper", "image/vit"]
)
def test_rates_from_the_fisher_information_of_any_architecture(name, tmp_path):
    model = architectures.build(name)
    fisher = random_fisher(model)
    wanted = GuidedDropout.from_fisher(fisher, model=model)
    assert list(wanted.rates) == list(dropout_sites(model))
    later = GuidedDropout.from_fisher(fisher)  # names alone do not tell
    assert later.rates is None
    apply(model, later)
    assert effective_rates(model) == wanted.rates
    assert model._klnorm_methods == (wanted,)
    model.save_pretrained(tmp_path)
    assert effective_rates(load(tmp_path)) == wanted.rates


def test_what_diagonal_fisher_returns_knows_its_model():
    model = architectures.build("text/gpt2")
    fisher = diagonal_fisher(model, [architectures.batch("text/gpt2", model)], progress=False)
    rates = GuidedDropout.from_fisher(fisher).rates
    assert rates == GuidedDropout.from_fisher(dict(fisher), model=model).rates
    assert type(pickle.loads(pickle.dumps(fisher))) is dict
    del model
    gc.collect()
    assert GuidedDropout.from_fisher(fisher).rates is None


def test_a_copy_that_has_lost_its_tensors_says_so():
    model = architectures.build("text/gpt2")
    copy = dataclasses.replace(GuidedDropout.from_fisher(random_fisher(model)), seed=4)
    with pytest.raises(ValueError, match=r"lost the Fisher information.*from_fisher\(fisher, model=model\)"):
        apply(model, copy)


def test_an_adapted_layer_keeps_its_place():
    model = architectures.build("text/gpt2")
    fisher = random_fisher(model)
    wanted = GuidedDropout.from_fisher(fisher, model=model).rates
    wrapped = lora(model, target_modules=["c_attn", "c_proj"], modules_to_save=["score"])
    assert GuidedDropout.from_fisher(fisher, model=wrapped).rates == wanted
    under_its_names = {n: f for n, f in random_fisher(wrapped).items() if "lora" not in n}
    assert list(GuidedDropout.from_fisher(under_its_names, model=wrapped).rates) == list(wanted)


def test_a_site_that_nothing_runs_into_is_named():
    model = zoo.build("bert")
    model.bert.embeddings = _Constant(model.bert.embeddings)
    with pytest.raises(ValueError, match="no parameter of BertModel is upstream of embeddings"):
        upstream_tensors(model)


class _Constant(nn.Module):
    """Embeddings that are no parameters."""

    def __init__(self, embeddings):
        super().__init__()
        self.dropout = embeddings.dropout
        self.word_embeddings = embeddings.word_embeddings

    def forward(self, input_ids=None, **kwargs):
        return self.dropout(torch.randn(*input_ids.shape, zoo.WIDTH))
