"""The noise has dropout's mean and variance at every site, in training only, and says so when it cannot."""

import pytest
import torch

from klnorm_lib import Dropout, GaussianDropout, apply, effective_rates, load
from klnorm_lib.functional.noise import gaussian_dropout
from klnorm_lib.probes.operations import Moments, _in_gaussian
from klnorm_lib.probes.rates import readings
from klnorm_lib.sites import dropout_sites
from tests import zoo
from tests.matrix import architectures
from tests.sites.test_sites import EXPECTED, lora

CASES = [(name, attention) for name, attention in zoo.CASES if name != "wavlm"]


def differing(sites):
    return {site: 0.05 + 0.03 * i for i, site in enumerate(sites)}


@pytest.mark.parametrize("p", [0.05, 0.2, 0.6])
def test_mean_and_variance_by_simulation(p):
    torch.manual_seed(0)
    x = torch.randn(64).double()
    y = torch.stack([gaussian_dropout(x, p) for _ in range(40_000)])
    variance = p / (1 - p)
    error = (variance / 40_000) ** 0.5
    assert ((y.mean(0) - x) / x).abs().max() < 5 * error
    assert (y.var(0) / x.square() / variance - 1).abs().max() < 5 * (2 / 40_000) ** 0.5


def test_no_rate_is_no_noise():
    x = torch.randn(4)
    assert gaussian_dropout(x, 0.0) is x


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_noise_of_the_requested_variance_at_every_site(name, attention, tmp_path):
    model = zoo.build(name, attention)
    inputs = zoo.batch(model)
    before = model(**inputs).logits
    rates = differing(EXPECTED[name])
    report = apply(model, GaussianDropout(rates=rates))
    assert effective_rates(model) == pytest.approx(rates, abs=1e-9)
    seen = readings(model)
    assert {reading.site for reading in seen} == set(rates)
    for reading in seen:
        wanted = rates[reading.site] / (1 - rates[reading.site])
        assert isinstance(reading.seen, Moments)
        assert reading.seen.count >= 256
        assert abs(reading.seen.mean - 1) < 6 * (wanted / reading.seen.count) ** 0.5
        assert abs(reading.seen.variance / wanted - 1) < 6 * (2 / reading.seen.count) ** 0.5
    assert report.added_parameters == 0
    assert all(line.endswith(", Gaussian") for line in report.changed)
    assert torch.equal(model(**inputs).logits, before)  # off in evaluation, and the attention is the model's own
    model.train()
    model(**inputs).loss.backward()
    model.eval().save_pretrained(tmp_path)
    again = load(tmp_path)
    assert effective_rates(again) == pytest.approx(rates, abs=1e-9)
    assert {reading.seen.noise for reading in readings(again)} == {"gaussian"}
    torch.testing.assert_close(again(**inputs).logits, before)  # the loaded model may use another attention code


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_tiny_noise_hardly_moves_the_training_logits(attention):
    """The attention function for training computes what the model's own computes, padding included."""
    model = zoo.build("bert", attention, hidden_dropout_prob=0.0, classifier_dropout=0.0)
    inputs = zoo.batch(model)
    before = model(**inputs).logits
    apply(model, GaussianDropout(rates={s: 1e-12 for s in EXPECTED["bert"] if s.endswith("attention_probs")}))
    torch.testing.assert_close(model.train()(**inputs).logits, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "deberta-v2", "wav2vec2"])
def test_lora_keeps_a_dropout_of_its_own(name):
    model = lora(zoo.build(name))
    rates = differing(EXPECTED[name])
    apply(model, GaussianDropout(rates=rates))
    assert effective_rates(model) == pytest.approx(rates, abs=1e-9)
    adapters = [m for n, m in model.named_modules() if "lora_dropout" in n and isinstance(m, torch.nn.Dropout)]
    assert {type(m) for m in adapters} == {torch.nn.Dropout}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_reentrant_recomputation_draws_the_same_noise(attention):
    gradients = []
    for checkpointed in (False, True):
        model = zoo.build("bert", attention, classifier_dropout=0.0)
        apply(model, GaussianDropout(p=0.3))
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": True})
        model.train()
        torch.manual_seed(5)
        model(**zoo.batch(model)).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients)


def test_sites_that_are_not_named_keep_their_dropout():
    model = zoo.build("bert")
    apply(model, GaussianDropout(rates={"layer.1.attention_probs": 0.3}))
    kinds = {reading.site: reading.seen.noise for reading in readings(model)}
    assert kinds.pop("layer.1.attention_probs") == "gaussian"
    assert set(kinds.values()) == {"bernoulli"}
    assert effective_rates(model) == dict.fromkeys(EXPECTED["bert"], 0.1) | {"layer.1.attention_probs": 0.3}


def test_attention_that_hides_its_weights_is_refused_and_nothing_changed():
    model = zoo.build("wavlm")
    before = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=r"WavLMAttention never leave one fused operation.*rates for the other sites"):
        apply(model, GaussianDropout())
    assert [type(module) for module in model.modules()] == before
    others = {s: 0.2 for s in EXPECTED["wavlm"] if not s.endswith("attention_probs")}
    apply(model, GaussianDropout(rates=others))
    assert {r.seen.noise for r in readings(model) if r.site in others} == {"gaussian"}


def test_an_unknown_attention_implementation_is_refused():
    model = zoo.build("bert")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="'flash_attention_2' hides its weights.*eager, sdpa"):
        apply(model, GaussianDropout())


def test_other_noise_than_asked_for_is_loud(monkeypatch):
    model = zoo.build("bert")
    monkeypatch.setattr("klnorm_lib.methods.gaussian_dropout.redirected", lambda module: None)
    with pytest.raises(RuntimeError, match=r"layer\.0\.attention_probs: the noise in .* is bernoulli, not gaussian"):
        apply(model, GaussianDropout(p=0.2))
    assert {site.get() for site in dropout_sites(model).values()} == {0.1}
    assert {reading.seen.noise for reading in readings(model)} == {"bernoulli"}


def test_noise_of_another_variance_is_found_out():
    """The fault of the published baseline: a standard deviation of p/(1-p) where it should be the variance."""
    x = torch.ones(4000)
    p, seen, _ = _in_gaussian(lambda x, p: x * (1 + p / (1 - p) * torch.randn_like(x)), (x, 0.2), {})
    assert not seen.plausible(p)
    assert _in_gaussian(gaussian_dropout, (x, 0.2), {})[1].plausible(p)


def test_plain_and_gaussian_dropout_at_one_site_are_refused():
    with pytest.raises(ValueError, match="two methods set the dropout rate"):
        apply(zoo.build("bert"), GaussianDropout(p=0.2), Dropout(p=0.1))


def test_rates_that_have_no_variance():
    with pytest.raises(ValueError, match="p must be below 1"):
        GaussianDropout(p=1.0)
    with pytest.raises(ValueError, match="embeddings must be below 1"):
        GaussianDropout(rates={"embeddings": 1.0})
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        GaussianDropout(p=-0.1)


def test_it_is_another_method_than_dropout():
    assert GaussianDropout(p=0.2) != Dropout(p=0.2)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", ["text/llama", "text/gpt2", "text/qwen3"])
def test_without_noise_to_speak_of_attention_is_the_models_own(name, masked):
    model, plain = architectures.build(name), architectures.build(name)
    apply(plain, Dropout(p=0.0))
    apply(model, GaussianDropout(p=1e-12))
    batch = architectures.batch(name, model, pads=3)
    if not masked:
        del batch["attention_mask"]
    torch.testing.assert_close(model.train()(**batch).logits, plain.train()(**batch).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["text/gemma2", "text/gpt_oss"])
def test_attention_that_is_more_than_a_softmax_is_refused(name):
    with pytest.raises(ValueError, match=r"which Gaussian dropout does not know; give rates for the other sites"):
        apply(architectures.build(name), GaussianDropout(p=0.1))
