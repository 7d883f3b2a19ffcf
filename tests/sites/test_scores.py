"""Every tensor of every architecture finds its site, and scores are the sums and means that they are said to be."""

import math

import pytest
import torch

from klnorm_lib.probes.fisher.table import FisherTable
from klnorm_lib.sites.names import tensor_sites
from klnorm_lib.sites.scores import AGGREGATIONS, site_scores
from tests import zoo
from tests.sites.test_sites import EXPECTED, lora

# Tensors upstream of each kind of site: 5, 6, 4 and 4 in BERT, as published.
COUNTS = dict.fromkeys(zoo.TEXT, {"embeddings": 5, "attention_probs": 6, "attention_output": 4, "ffn_output": 4})
COUNTS["distilbert"] = {"embeddings": 4, "attention_probs": 6, "ffn_output": 4}
COUNTS["mpnet"] = COUNTS["bert"] | {"embeddings": 4}
COUNTS["deberta-v2"] = COUNTS["bert"] | {"embeddings": 3}
COUNTS |= dict.fromkeys(
    zoo.AUDIO, {"embeddings": 9, "attention_probs": 6, "attention_output": 4, "ffn_hidden": 2, "ffn_output": 4}
)
COUNTS["wavlm"] = COUNTS["wavlm"] | {"attention_probs": 9}
COUNTS["data2vec-audio"] = COUNTS["data2vec-audio"] | {"embeddings": 38}

# All that no dropout of the encoder follows directly, without the number of the layer.
NOWHERE = {
    "bert": {"intermediate.dense", "pooler.dense"},
    "roberta": {"intermediate.dense", "pooler.dense"},
    "electra": {"intermediate.dense", "embeddings_project"},
    "mpnet": {"intermediate.dense", "pooler.dense", "encoder.relative_attention_bias"},
    "distilbert": {"ffn.lin1", "attention.out_lin", "sa_layer_norm"},
    "deberta-v2": {
        "intermediate.dense", "encoder.rel_embeddings", "encoder.LayerNorm", "encoder.conv.conv",
        "encoder.conv.LayerNorm",
    },
    "wavlm": {"attention.rel_attn_embed"},
    "sew": {"encoder.upsample.projection"},
}  # fmt: skip


def random_fisher(model, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.rand(p.shape, generator=g) for name, p in model.named_parameters()}


def counted(sites):
    return [site for site in sites.values() if site is not None]


@pytest.mark.parametrize("name", zoo.NAMES)
def test_every_site_gets_its_tensors(name):
    sites = tensor_sites(n for n, _ in zoo.build(name, kind="encoder").named_parameters())
    for site in EXPECTED[name]:
        assert counted(sites).count(site) == COUNTS[name][site.split(".")[-1]], site
    assert set(counted(sites)) == set(EXPECTED[name])


@pytest.mark.parametrize("name", zoo.NAMES)
def test_what_belongs_to_no_site_is_known_by_name(name):
    sites = tensor_sites(n for n, _ in zoo.build(name, kind="encoder").named_parameters())
    left = {n.rpartition(".")[0] for n, site in sites.items() if site is None}
    left = {n.split(".layer.")[-1].split(".layers.")[-1] for n in left if not n.startswith("feature_extractor.")}
    assert {n.lstrip("0123456789.") for n in left} == NOWHERE.get(name, set())


@pytest.mark.parametrize("name", zoo.NAMES)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_head_prefix_and_wrapper_do_not_matter(name, aggregation):
    bare = zoo.build(name, kind="encoder")
    fisher = random_fisher(bare)
    wanted = site_scores(fisher, aggregation)
    assert list(wanted) == EXPECTED[name]
    prefix = bare.base_model_prefix
    headed = {f"{prefix}.{n}": f for n, f in fisher.items()} | {"head_of_my_own.weight": torch.rand(3, 3)}
    assert site_scores(headed, aggregation) == wanted
    assert site_scores({f"module.{n}": f for n, f in headed.items()}, aggregation) == wanted
    assert site_scores(FisherTable.of(fisher), aggregation) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("name", zoo.TEXT)
def test_masked_language_models_have_the_same_sites(name):
    model = zoo.build(name, kind="masked-lm")
    assert list(site_scores(random_fisher(model))) == EXPECTED[name]
    stripped = {n.removeprefix(f"{model.base_model_prefix}."): f for n, f in random_fisher(model).items()}
    assert site_scores(stripped) == site_scores(random_fisher(model))


def test_adapted_layers_keep_their_place():
    plain, wrapped = zoo.build("bert"), lora(zoo.build("bert"))
    fisher = random_fisher(plain)
    sites = tensor_sites(n for n, _ in wrapped.named_parameters())
    assert {s: counted(sites).count(s) for s in EXPECTED["bert"]} == {
        s: counted(tensor_sites(fisher)).count(s) for s in EXPECTED["bert"]
    }


def test_scores_by_hand():
    """One matrix of four weights and one bias of two: the three aggregations weigh them differently."""
    fisher = {n: torch.zeros_like(p) for n, p in zoo.build("bert", kind="encoder").named_parameters()}
    prefix = "encoder.layer.1.output"
    fisher[f"{prefix}.dense.weight"] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    fisher[f"{prefix}.dense.bias"] = torch.tensor([6.0, 8.0])
    fisher[f"{prefix}.LayerNorm.weight"] = fisher[f"{prefix}.LayerNorm.bias"] = torch.zeros(2)
    site = "layer.1.ffn_output"
    assert site_scores(fisher)[site] == (2.5 + 7.0) / 4
    assert site_scores(fisher, "mass")[site] == 24 / 10
    assert site_scores(fisher, "sum")[site] == 24
    assert site_scores(fisher)["layer.0.ffn_output"] == 0


def test_one_large_bias_dominates_the_published_mean_only():
    fisher = {n: torch.ones_like(p) for n, p in zoo.build("bert", kind="encoder").named_parameters()}
    fisher["encoder.layer.0.output.dense.bias"] *= 100
    mean, mass = site_scores(fisher)["layer.0.ffn_output"], site_scores(fisher, "mass")["layer.0.ffn_output"]
    assert mean == pytest.approx((3 + 100) / 4)
    assert mass == pytest.approx((64 * 32 + 3 * 32 + 99 * 32) / (64 * 32 + 3 * 32))
    assert mass < 3


@pytest.mark.parametrize("name", ["encoder.layer.0.attention.self.extra.weight", "decoder.block.weight", "w"])
def test_a_name_that_has_no_place_is_refused(name):
    fisher = random_fisher(zoo.build("bert", kind="encoder")) | {name: torch.ones(1)}
    with pytest.raises(ValueError, match=rf"cannot tell .*{name}.*GuidedDropout\(rates"):
        site_scores(fisher)


def test_names_of_an_encoder_that_is_not_known_are_refused():
    with pytest.raises(ValueError, match="cannot tell which dropout site"):
        tensor_sites(["h.0.attn.c_attn.weight", "wte.weight"])
    conformer = [n for n, _ in zoo.build("wav2vec2-conformer", kind="encoder").named_parameters()]
    with pytest.raises(ValueError, match="cannot tell which dropout site"):
        tensor_sites(conformer)


def test_a_fisher_with_holes_is_refused():
    fisher = random_fisher(zoo.build("bert"))
    without = {n: f for n, f in fisher.items() if n != "bert.encoder.layer.1.attention.self.key.bias"}
    with pytest.raises(ValueError, match=r"layer 1: attention\.self\.key\.bias"):
        site_scores(without)
    with pytest.raises(ValueError, match="layer 0: attention"):
        site_scores({n: f for n, f in fisher.items() if ".layer.0." not in n})
    with pytest.raises(ValueError, match="all layers"):
        site_scores({n: f for n, f in fisher.items() if ".layer." not in n})
    with pytest.raises(ValueError, match="no tensor of the embeddings"):
        site_scores({n: f for n, f in fisher.items() if "embeddings" not in n})
    with pytest.raises(ValueError, match="empty"):
        site_scores({})


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_values_that_no_square_can_have(value):
    fisher = random_fisher(zoo.build("bert"))
    fisher["bert.embeddings.LayerNorm.bias"] = torch.full((32,), value)
    with pytest.raises(ValueError, match="negative or not finite"):
        site_scores(fisher)


def test_unknown_aggregation():
    with pytest.raises(ValueError, match="unknown aggregation 'mean'; choose one of tensor_mean, mass, sum"):
        site_scores(random_fisher(zoo.build("bert")), "mean")


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_tensor_without_elements_counts_for_nothing(aggregation):
    fisher = random_fisher(zoo.build("bert"))
    with_empty = {**fisher, "bert.embeddings.token_type_embeddings.weight": torch.zeros(0, 32)}
    without = {n: f for n, f in fisher.items() if "token_type" not in n}
    assert site_scores(with_empty, aggregation) == site_scores(without, aggregation)
    assert site_scores(FisherTable.of(with_empty), aggregation) == pytest.approx(site_scores(without, aggregation))
