"""Sites are found by role and name: the same names whatever head or wrapper the model has."""

import pytest
import torch
from peft import LNTuningConfig, LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModel

from klnorm_lib import KLNorm, apply
from klnorm_lib.methods import GuidedDropout
from klnorm_lib.probes import effective_rates
from klnorm_lib.sites import classifier_path, dropout_sites, encoder_of, norm_paths, unwrap
from tests import zoo

KINDS = dict.fromkeys(zoo.TEXT, ("attention_probs", "attention_output", "ffn_output"))
KINDS |= {"distilbert": ("attention_probs", "ffn_output")}
KINDS |= dict.fromkeys(zoo.AUDIO, ("attention_probs", "attention_output", "ffn_hidden", "ffn_output"))
EXPECTED = {
    name: ["embeddings", *(f"layer.{i}.{kind}" for i in range(zoo.LAYERS) for kind in kinds)]
    for name, kinds in KINDS.items()
}
CLASSIFIER = dict.fromkeys(zoo.NAMES, "classifier")
CLASSIFIER |= dict.fromkeys(("roberta", "electra", "mpnet"), "classifier.out_proj")


def lora(model, **settings):
    """LoRA with dropout of its own on every linear layer of the encoder, the classifier trained as a copy."""
    prefix = model.base_model_prefix
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.startswith(f"{prefix}.")]
    settings = {"target_modules": linear, "lora_dropout": 0.33, "modules_to_save": ["classifier"]} | settings
    return get_peft_model(model, LoraConfig(r=2, **settings))


@pytest.mark.parametrize(("name", "attention"), zoo.CASES)
def test_site_names(name, attention):
    assert list(dropout_sites(zoo.build(name, attention))) == EXPECTED[name]


@pytest.mark.parametrize("layers", [1, 3])
def test_bert_has_one_site_and_three_a_layer(layers):
    assert len(dropout_sites(zoo.build("bert", num_hidden_layers=layers))) == 1 + 3 * layers


@pytest.mark.parametrize("name", zoo.NAMES)
def test_names_do_not_depend_on_head_or_wrapper(name):
    kinds = ["encoder"] + (["masked-lm"] if name in zoo.TEXT else [])
    wrapped = [nn.DataParallel(lora(zoo.build(name))), torch.compile(zoo.build(name))]
    for model in [zoo.build(name, kind=kind) for kind in kinds] + wrapped:
        assert list(dropout_sites(model)) == EXPECTED[name]


@pytest.mark.parametrize("name", ["wav2vec2", "hubert", "wavlm"])
def test_names_of_the_stable_layer_norm_variant(name):
    model = zoo.build(name, do_stable_layer_norm=True, feat_extract_norm="layer")
    assert list(dropout_sites(model)) == EXPECTED[name]


def test_sites_hold_the_rates_of_the_config():
    model = zoo.build("bert", hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3, classifier_dropout=0.4)
    rates = {name: site.get() for name, site in dropout_sites(model).items()}
    assert {p for n, p in rates.items() if n.endswith("probs")} == {0.3}
    assert {p for n, p in rates.items() if not n.endswith("probs")} == {0.2}


@pytest.mark.parametrize(
    ("name", "site", "companion"),
    [
        ("wav2vec2", "embeddings", "feature_projection.dropout"),
        ("data2vec-audio", "embeddings", "feature_projection.dropout"),
        ("sew", "embeddings", "feature_dropout"),
        ("deberta-v2", "layer.1.attention_probs", "encoder.layer.1.attention.self.pos_dropout"),
        ("deberta-v2", "layer.0.ffn_output", "encoder.conv.dropout"),
    ],
)
def test_companions_are_set_with_their_site(name, site, companion):
    model = zoo.build(name)
    dropout_sites(model)[site].set(0.25)
    assert encoder_of(model).get_submodule(companion).p == 0.25
    assert dropout_sites(model)[site].get() == 0.25


def test_setting_all_sites_leaves_the_head_alone():
    model = zoo.build("bert", classifier_dropout=0.4)
    for site in dropout_sites(model).values():
        site.set(0.0)
    assert model.dropout.p == 0.4
    audio = zoo.build("wav2vec2", layerdrop=0.3)
    for site in dropout_sites(audio).values():
        site.set(0.0)
    assert audio.config.layerdrop == 0.3


_LAYER = ["attention_probs", "attention_output", "ffn_output"]
STRUCTURE = {
    "gpt2": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40},
             ["embeddings", *(f"layer.{i}.{kind}" for i in range(2) for kind in _LAYER)]),
    # One layer, run twice: one set of sites.
    "albert": ({"embedding_size": 16, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
                "intermediate_size": 64},
               ["embeddings", "layer.0.attention_probs", "layer.0.attention_output"]),
    "modernbert": (zoo._BERT | {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
                   ["embeddings", *(f"layer.{i}.{k}" for i in range(2) for k in ("attention_probs", "ffn_hidden"))]),
    "llama": (zoo._BERT, ["layer.0.attention_probs", "layer.1.attention_probs"]),
    "xlm": ({"emb_dim": 32, "n_layers": 2, "n_heads": 4},
            ["embeddings", *(f"layer.{i}.{k}" for i in range(2) for k in ("attention_probs", "ffn_output"))]),
    "ibert": (zoo._BERT, ["embeddings", *(f"layer.{i}.{kind}" for i in range(2) for kind in _LAYER)]),
    "esm": (zoo._BERT | {"position_embedding_type": "rotary", "mask_token_id": 3},
            [f"layer.{i}.{kind}" for i in range(2) for kind in _LAYER]),
    "dinov2": ({"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 16, "patch_size": 8},
               ["embeddings", "layer.0.attention_probs"]),
    "t5": ({"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4},
           ["encoder.embeddings", "encoder.layer.0.attention_probs", "encoder.layer.0.attention_output",
            "encoder.layer.0.ffn_hidden", "encoder.layer.0.ffn_output",
            "decoder.embeddings", "decoder.layer.0.attention_probs", "decoder.layer.0.attention_output",
            "decoder.layer.0.cross_attention_probs", "decoder.layer.0.cross_attention_output",
            "decoder.layer.0.ffn_hidden", "decoder.layer.0.ffn_output"]),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURE)
def test_sites_by_structure_run_at_the_rates_that_were_asked_for(name):
    settings, expected = STRUCTURE[name]
    config = AutoConfig.for_model(name, **({"vocab_size": 120} | settings))
    model = AutoModel.from_config(config, attn_implementation="eager")
    assert list(dropout_sites(model)) == expected
    wanted = {site: round(0.05 + 0.02 * k, 2) for k, site in enumerate(expected)}
    apply(model, GuidedDropout(rates=wanted))
    assert effective_rates(model) == wanted


def test_a_dropout_of_unknown_role_is_refused_by_name():
    model = zoo.build("bert")
    model.bert.encoder.layer[0].intermediate.extra = nn.Dropout(0.5)
    with pytest.raises(ValueError, match=r"encoder\.layer\.0\.intermediate\.extra"):
        dropout_sites(model)


def test_an_encoder_without_dropout_has_no_sites():
    model = zoo.build("bert")
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, nn.Identity())
    with pytest.raises(ValueError, match="no known dropout site in BertModel.*none was found"):
        dropout_sites(model)


def test_something_that_is_no_transformers_model_is_refused():
    with pytest.raises(TypeError, match="Hugging Face transformers model.*Linear"):
        unwrap(nn.Linear(2, 2))


def test_unwrap_sees_through_any_nesting():
    model = zoo.build("bert")
    assert unwrap(model) is model
    assert unwrap(nn.DataParallel(lora(model))) is model


@pytest.mark.parametrize("name", zoo.NAMES)
def test_classifier_path(name):
    model = zoo.build(name)
    path = classifier_path(model)
    assert path == CLASSIFIER[name]
    assert model.get_submodule(path).out_features == zoo.LABELS


@pytest.mark.parametrize("name", zoo.NAMES)
def test_classifier_path_is_the_trained_copy_under_peft(name):
    model = lora(zoo.build(name))
    path = classifier_path(model)
    layer = unwrap(model).get_submodule(path)
    assert "modules_to_save.default" in path
    assert layer.out_features == zoo.LABELS
    assert all(p.requires_grad for p in layer.parameters())
    calls = []
    layer.register_forward_hook(lambda *_: calls.append(path))
    model(**zoo.batch(model))
    assert calls == [path]  # it is the copy that runs


def test_classifier_path_of_an_adapted_classifier_is_the_adapted_layer():
    model = lora(zoo.build("bert"), target_modules=["query", "classifier"], modules_to_save=None)
    assert classifier_path(model) == "classifier"
    assert unwrap(model).get_submodule("classifier").get_base_layer().out_features == zoo.LABELS


def test_classifier_path_with_disabled_adapters_is_the_original():
    model = lora(zoo.build("bert"))
    with model.disable_adapter():
        assert classifier_path(model) == "classifier.original_module"


def test_a_bare_encoder_has_no_classifier():
    with pytest.raises(ValueError, match="BertModel has no linear layer outside its encoder"):
        classifier_path(zoo.build("bert", kind="encoder"))


@pytest.mark.parametrize("name", zoo.NAMES)
def test_norm_paths_are_the_encoders_own(name):
    model = zoo.build(name)
    paths = norm_paths(model)
    modules = [model.get_submodule(p) for p in paths]
    torch_norms = [m for m in encoder_of(model).modules() if isinstance(m, (nn.LayerNorm, nn.GroupNorm))]
    assert modules == torch_norms
    assert any(isinstance(m, nn.GroupNorm) for m in modules) == (name in zoo.GROUP_NORM)


def test_norm_paths_know_other_classes_by_name():
    class BertLayerNorm(nn.Module):
        def forward(self, x):
            return x

    model = zoo.build("bert")
    path = "bert.encoder.layer.1.output.LayerNorm"
    model.bert.encoder.layer[1].output.LayerNorm = BertLayerNorm()
    assert path in norm_paths(model)
    model.bert.encoder.layer[1].output.LayerNorm = nn.RMSNorm(zoo.WIDTH)
    assert path in norm_paths(model)
    model.bert.encoder.layer[1].output.LayerNorm = nn.Identity()
    assert path not in norm_paths(model)


@pytest.mark.filterwarnings("ignore:Unsupported layer type")
def test_norm_paths_under_peft_name_each_layer_once():
    plain = norm_paths(zoo.build("bert"))
    assert norm_paths(get_peft_model(zoo.build("bert"), LNTuningConfig(target_modules=["LayerNorm"]))) == plain
    copies = norm_paths(lora(zoo.build("bert"), modules_to_save=["LayerNorm"]))
    assert copies == [f"{p}.modules_to_save.default" for p in plain]


def test_layers_that_a_method_added_are_not_the_encoders_own():
    model = zoo.build("bert")
    apply(model, KLNorm(placement="internal"))
    with pytest.raises(ValueError, match="no normalisation layer found"):
        norm_paths(model)
    assert list(dropout_sites(model)) == EXPECTED["bert"]
