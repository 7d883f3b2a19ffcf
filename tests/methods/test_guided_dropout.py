"""The rates that were asked for are the rates that run: everywhere, in every mode, saved, loaded and checkpointed."""

import copy
import dataclasses
import json
import pickle

import pytest
import torch
from torch.nn import functional as F

from klnorm_lib import Dropout, GuidedDropout, KLNorm, apply, auxiliary_loss, effective_rates, load
from klnorm_lib.encoders.sources import EncoderSource
from klnorm_lib.methods import build, from_dict, to_dict
from klnorm_lib.methods.rate_rules import RULES
from klnorm_lib.probes import rates as measured
from klnorm_lib.probes.fisher import table as tables
from klnorm_lib.probes.fisher.table import FisherTable, save_fisher
from klnorm_lib.sites import dropout_sites, encoder_of
from klnorm_lib.sites.names import tensor_sites
from klnorm_lib.sites.scores import AGGREGATIONS
from tests import zoo
from tests.probes.test_rates import freeze_attention
from tests.sites.test_scores import random_fisher
from tests.sites.test_sites import EXPECTED, lora


def guided(model, **settings):
    return GuidedDropout.from_fisher(random_fisher(model), **{"p_upper": 0.3, "p_lower": 0.01} | settings)


def running(model):
    """Every rate at which a site's operations run in one forward pass in the mode that the model is in."""
    encoder = encoder_of(model)
    recorder = measured.Recorder(encoder, dropout_sites(model))
    with torch.no_grad(), recorder.following(), recorder:
        encoder(**zoo.batch(model, labels=False))
    found = {}
    for reading in recorder.readings:
        found.setdefault(reading.site, set()).add(reading.p)
    return found


def called(model, monkeypatch):
    """Rates that torch is called with in a forward and backward pass of the encoder, recomputations included."""
    found = []

    def watch(name, keyword, position):
        function = getattr(F, name)

        def call(*args, **kwargs):
            found.append(kwargs[keyword] if keyword in kwargs else args[position])
            return function(*args, **kwargs)

        patch.setattr(F, name, call)

    with monkeypatch.context() as patch:
        watch("dropout", "p", 1)
        watch("scaled_dot_product_attention", "dropout_p", 4)
        watch("multi_head_attention_forward", "dropout_p", 10)
        encoder_of(model)(**zoo.batch(model, labels=False)).last_hidden_state.square().sum().backward()
    return found


@pytest.mark.parametrize(("name", "attention"), zoo.CASES)
def test_requested_rates_run_at_every_site(name, attention, tmp_path):
    model = zoo.build(name, attention)
    method = guided(model)
    report = apply(model, method)
    assert list(method.rates) == EXPECTED[name]
    assert len(set(method.rates.values())) == len(EXPECTED[name])
    assert effective_rates(model) == pytest.approx(method.rates, abs=1e-12)
    assert len(report.changed) == len(EXPECTED[name])
    assert report.added_parameters == 0
    model.train()
    assert running(model) == {site: {p} for site, p in method.rates.items()}
    model.eval()
    assert running(model) == dict.fromkeys(method.rates, {0.0})
    model.save_pretrained(tmp_path)
    assert effective_rates(load(tmp_path)) == pytest.approx(method.rates, abs=1e-12)


# Reentrant recomputation cannot share what WavLM and DeBERTa pass from layer to layer, with or without any method: it
# waits for ever, or asks for a graph that is gone. MPNet's class has no checkpointing.
REENTRANT = [name for name in zoo.NAMES if name not in ("wavlm", "deberta-v2", "mpnet")]
CHECKPOINTED = [
    *((name, None, False) for name in zoo.NAMES if name != "mpnet"),
    *((name, None, True) for name in REENTRANT),
    ("bert", "eager", False),
    ("bert", "eager", True),
]


@pytest.mark.parametrize(("name", "attention", "reentrant"), CHECKPOINTED)
def test_requested_rates_run_under_gradient_checkpointing(name, attention, reentrant, monkeypatch):
    model = zoo.build(name, attention)
    method = guided(model)
    apply(model, method)
    model.train()
    wanted = sorted(method.rates.values())
    once = called(model, monkeypatch)
    assert sorted(set(once)) == wanted
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    twice = called(model, monkeypatch)
    assert sorted(set(twice)) == wanted
    in_layers = [site for site in method.rates if site != "embeddings"]
    assert [site for site in in_layers if twice.count(method.rates[site]) <= once.count(method.rates[site])] == []


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_reentrant_recomputation_draws_the_same_masks(attention):
    gradients = []
    for checkpointed in (False, True):
        model = zoo.build("bert", attention, classifier_dropout=0.0)
        apply(model, guided(model))
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": True})
        model.train()
        torch.manual_seed(5)
        model(**zoo.batch(model)).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", ["bert", "distilbert", "deberta-v2", "wav2vec2"])
def test_under_peft(name, tmp_path):
    plain = zoo.build(name)
    method = guided(plain)
    model = lora(plain)
    apply(model, method)
    assert effective_rates(model) == pytest.approx(method.rates, abs=1e-12)


@pytest.mark.parametrize("order", [1, -1])
def test_it_composes_with_kl_norm(order, tmp_path):
    model = zoo.build("bert")
    method = guided(model)
    apply(model, *[method, KLNorm(beta=0.1)][::order])
    assert effective_rates(model) == pytest.approx(method.rates, abs=1e-12)
    model.train()(**zoo.batch(model)).loss.backward()
    assert auxiliary_loss(model.eval()) >= 0
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert effective_rates(again) == pytest.approx(method.rates, abs=1e-12)
    assert {m.name for m in again._klnorm_methods} == {"guided_dropout", "klnorm"}


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_rates_are_those_of_rule_and_aggregation(aggregation):
    """Worked out from the numbers of each site's tensors: the linear rule, between 0.2 and 0.1, to the mean 0.12."""
    fisher = random_fisher(zoo.build("bert", kind="encoder"))
    parts = {}
    for name, site in tensor_sites(fisher).items():
        if site is not None:
            parts.setdefault(site, []).append(fisher[name].double().flatten())
    by_hand = {"tensor_mean": lambda t: sum(x.mean() for x in t) / len(t)}
    by_hand |= {"mass": lambda t: torch.cat(t).mean(), "sum": lambda t: torch.cat(t).sum()}
    scores = {site: by_hand[aggregation](tensors).item() for site, tensors in parts.items()}
    low, high = min(scores.values()), max(scores.values())
    rates = {site: 0.2 - 0.1 * (score - low) / (high - low) for site, score in scores.items()}
    mean = sum(rates.values()) / len(rates)
    method = GuidedDropout.from_fisher(fisher, 0.2, 0.1, "linear", aggregation, match_mean=0.12, seed=4)
    assert method.rates == pytest.approx({site: p * 0.12 / mean for site, p in rates.items()})
    assert (method.rule, method.aggregation, method.match_mean, method.seed) == ("linear", aggregation, 0.12, 4)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_reaches_the_sites(rule):
    fisher = random_fisher(zoo.build("bert"))
    made = {seed: GuidedDropout.from_fisher(fisher, 0.2, 0.1, rule, seed=seed).rates for seed in (4, 5)}
    assert (made[4] == made[5]) == (rule != "random")
    by_rank = GuidedDropout.from_fisher(fisher, 0.2, 0.1).rates
    assert (made[4] == by_rank) == (rule == "rank")
    if rule == "reverse":
        assert made[4] == pytest.approx({site: 0.3 - p for site, p in by_rank.items()})


def test_a_table_on_disk_and_the_file_of_full_tensors_give_the_same_rates(tmp_path):
    model = zoo.build("bert")
    fisher = random_fisher(model)
    wanted = GuidedDropout.from_fisher(fisher).rates
    FisherTable.of(fisher, "bert", model="mine").save(tmp_path / "mine.json")
    save_fisher(tmp_path / "mine.safetensors", fisher, {"model": "mine"})
    for path in (tmp_path / "mine.json", str(tmp_path / "mine.safetensors")):
        assert GuidedDropout.from_fisher(path).rates == pytest.approx(wanted, rel=1e-9)
        copied = zoo.build("bert")
        apply(copied, GuidedDropout(fisher=path))
        assert effective_rates(copied) == pytest.approx(wanted, rel=1e-9)


def test_what_is_saved_are_rates_and_loading_needs_no_table(tmp_path):
    model = zoo.build("bert")
    table = FisherTable.of(random_fisher(model), "bert").save(tmp_path / "mine.json")
    apply(model, GuidedDropout(fisher=table, rule="reverse"))
    wanted = effective_rates(model)
    model.save_pretrained(tmp_path / "model")
    table.unlink()
    (saved,) = json.loads((tmp_path / "model/config.json").read_text())["klnorm"]["methods"]
    assert saved["rates"] == pytest.approx(wanted)
    assert (saved["rule"], saved["fisher"]) == ("reverse", "mine.json")  # where the rates came from, without the folder
    again = load(tmp_path / "model")
    assert effective_rates(again) == pytest.approx(wanted)
    again.save_pretrained(tmp_path / "again")
    assert effective_rates(load(tmp_path / "again")) == pytest.approx(wanted)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A shelf of tables with one on it: of the encoder called org/mine, weights abc."""
    monkeypatch.setattr(tables, "TABLES", tmp_path)
    fisher = random_fisher(zoo.build("bert"))
    FisherTable.of(fisher, "bert", model="org/mine", sha256="abc").save(tmp_path / "org--mine.json")
    return GuidedDropout.from_fisher(fisher).rates


def test_the_table_is_that_of_the_models_own_encoder(shelf):
    model = zoo.build("bert")
    model.klnorm_source = EncoderSource("org/mine", "mirror", "somewhere", None, "abc")
    apply(model, GuidedDropout())
    assert effective_rates(model) == pytest.approx(shelf, rel=1e-9)
    assert model._klnorm_methods[0].fisher == "org/mine"
    by_config = zoo.build("bert")
    by_config.config._name_or_path = "org/mine"
    apply(by_config, GuidedDropout())
    assert effective_rates(by_config) == pytest.approx(shelf, rel=1e-9)


def test_a_table_of_other_weights_is_taken_by_name_only(shelf):
    model = zoo.build("bert")
    model.klnorm_source = EncoderSource("org/mine", "mirror", "somewhere", None, "def")
    with pytest.raises(ValueError, match=r"made from other weights \(sha256 abc\).*GuidedDropout\(fisher='org/mine'\)"):
        apply(model, GuidedDropout())
    assert set(effective_rates(model).values()) == {0.1}
    apply(model, GuidedDropout(fisher="org/mine"))
    assert effective_rates(model) == pytest.approx(shelf, rel=1e-9)


def test_without_a_table_the_command_that_makes_one_is_named(shelf):
    model = zoo.build("bert")
    with pytest.raises(ValueError, match="does not say which weights.*klnorm fisher"):
        apply(model, GuidedDropout())
    model.klnorm_source = EncoderSource("org/other", "mirror", "somewhere", None, "abc")
    with pytest.raises(FileNotFoundError, match="no Fisher information of 'org/other'.*klnorm fisher"):
        apply(model, GuidedDropout())
    with pytest.raises(FileNotFoundError, match="klnorm fisher"):
        GuidedDropout.from_fisher("nobody/knows")
    model.klnorm_source = EncoderSource("org/mine:random", "mirror", "somewhere", None, "abc", random=True)
    with pytest.raises(FileNotFoundError):  # weights drawn afresh have no pretraining to hold on to
        apply(model, GuidedDropout())


def test_the_fisher_of_the_task_needs_to_see_the_task():
    model = zoo.build("bert")
    method = GuidedDropout(fisher="task", rule="rank")
    with pytest.raises(ValueError, match=r"has not seen the task yet: method = method\.prepare\(model, batches\)"):
        apply(model, method)
    batches = [zoo.batch(model, rows=3, seed=seed) for seed in range(2)]
    before = {n: p.clone() for n, p in model.named_parameters()}
    ready = method.prepare(model, batches)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    by_hand = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for row in (row for b in batches for row in [{k: v[i : i + 1] for k, v in b.items()} for i in range(3)]):
        length = int(row["attention_mask"].sum())
        row = {k: v if k == "labels" else v[:, :length] for k, v in row.items()}
        gradients = torch.autograd.grad(model(**row).loss, list(model.parameters()), allow_unused=True)
        for (name, _), g in zip(model.named_parameters(), gradients, strict=True):
            by_hand[name] += 0 if g is None else g.square()
    by_hand = {n: f for n, f in by_hand.items() if n.startswith("bert.")}
    assert ready.rates == pytest.approx(GuidedDropout.from_fisher(by_hand).rates, abs=1e-9)
    apply(model, ready)
    assert effective_rates(model) == pytest.approx(ready.rates)
    assert ready.prepare(model, batches) is ready
    assert guided(model).prepare(model, batches) == guided(model)


def test_tables_of_another_encoder_are_refused():
    model = zoo.build("bert")
    with pytest.raises(ValueError, match=r"unknown dropout site layer\.2"):
        apply(model, guided(zoo.build("bert", num_hidden_layers=3)))
    with pytest.raises(ValueError, match=r"no rate for layer\.1\.attention_probs.*every site"):
        apply(model, guided(zoo.build("bert", num_hidden_layers=1)))
    assert set(effective_rates(model).values()) == {0.1}


def test_a_rate_that_does_not_take_is_loud():
    model = freeze_attention(zoo.build("bert"))
    with pytest.raises(RuntimeError, match=r"did not take.*layer\.1\.attention_probs"):
        apply(model, guided(zoo.build("bert")))
    assert {site.get() for site in dropout_sites(model).values()} == {0.1}


def test_two_methods_for_one_rate_are_refused():
    model = zoo.build("bert")
    with pytest.raises(ValueError, match="two methods set the dropout rate of embeddings"):
        apply(model, Dropout(p=0.2), guided(model))
    assert set(effective_rates(model).values()) == {0.1}
    apply(model, Dropout(rates={"embeddings": 0.3}), Dropout(rates={"layer.0.ffn_output": 0.2}))
    assert effective_rates(model)["embeddings"] == 0.3


def test_the_head_keeps_its_dropout():
    model = zoo.build("bert", classifier_dropout=0.4)
    apply(model, guided(model))
    assert model.dropout.p == 0.4


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="unknown rule"):
        GuidedDropout(rule="ranks")
    with pytest.raises(ValueError, match="unknown aggregation"):
        GuidedDropout(aggregation="max")
    with pytest.raises(ValueError, match="0 <= p_lower <= p_upper < 1"):
        GuidedDropout(p_upper=0.1, p_lower=0.2)
    with pytest.raises(ValueError, match="match_mean must lie"):
        GuidedDropout(match_mean=1.5)
    with pytest.raises(ValueError, match="seed must be a whole number"):
        GuidedDropout(seed=0.5)
    with pytest.raises(ValueError, match="the rate of embeddings must lie"):
        GuidedDropout(rates={"embeddings": 1.5})
    with pytest.raises(TypeError, match="must map site names"):
        GuidedDropout(rates=[0.1])
    with pytest.raises(TypeError, match=r"use GuidedDropout\.from_fisher"):
        GuidedDropout(fisher={"w": torch.ones(2)})


@pytest.mark.parametrize("method", [GuidedDropout(), GuidedDropout(rates={"embeddings": 0.25}, rule="log", seed=3)])
def test_round_trips(method):
    assert from_dict(json.loads(json.dumps(to_dict(method)))) == method
    for twin in (copy.deepcopy(method), pickle.loads(pickle.dumps(method)), dataclasses.replace(method)):
        assert twin == method
        assert hash(twin) == hash(method)
    assert build("guided_dropout", rule="log").rule == "log"
