"""The measured rate is what runs, its zeros agree with it, and measuring leaves no trace."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.bert.modeling_bert import BertSelfAttention

from klnorm_lib import KLNorm, apply, effective_rates
from klnorm_lib.probes.inputs import dummy_inputs
from klnorm_lib.probes.operations import _plausible
from klnorm_lib.sites import dropout_sites, encoder_of
from tests import zoo
from tests.sites.test_sites import EXPECTED, lora

RATES = (0.0, 0.03, 0.1, 0.25, 0.5)


def spread(model):
    """Give every site a rate of its own and return them."""
    sites = dropout_sites(model)
    wanted = {name: RATES[i % len(RATES)] + 0.001 * i for i, name in enumerate(sites)}
    for name, p in wanted.items():
        sites[name].set(p)
    return wanted


class FrozenAttention(BertSelfAttention):
    """Attention as transformers 4.57 had it: the rate that runs is copied when the layer is built."""

    def __init__(self, config, layer_idx=None):
        super().__init__(config, layer_idx=layer_idx)
        self.dropout_prob = config.attention_probs_dropout_prob

    def forward(self, hidden_states, *args, **kwargs):
        q, k, v = (
            f(hidden_states).unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        p = self.dropout_prob if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, dropout_p=p).transpose(1, 2).flatten(2), None


def freeze_attention(model, layer=1):
    block = model.bert.encoder.layer[layer].attention
    frozen = FrozenAttention(model.config, layer_idx=layer).train(model.training)
    frozen.load_state_dict(block.self.state_dict())
    block.self = frozen
    return model


@pytest.mark.parametrize(("name", "attention"), zoo.CASES)
def test_every_site_reports_the_rate_that_was_set(name, attention):
    model = zoo.build(name, attention)
    wanted = spread(model)
    assert list(wanted) == EXPECTED[name]
    assert effective_rates(model) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("name", "attention"), zoo.CASES)
def test_under_lora_only_the_models_own_dropout_is_reported(name, attention):
    model = lora(zoo.build(name, attention))
    wanted = spread(model)
    assert effective_rates(model) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(("name", "attention"), zoo.CASES)
def test_with_gradient_checkpointing(name, attention, reentrant):
    model = zoo.build(name, attention)
    if model.supports_gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    wanted = spread(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="None of the inputs")
        assert effective_rates(model) == pytest.approx(wanted, abs=1e-9)
    on = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert on == model.supports_gradient_checkpointing


@pytest.mark.parametrize("kind", ["encoder", "masked-lm"])
@pytest.mark.parametrize("name", zoo.TEXT)
def test_other_heads(name, kind):
    model = zoo.build(name, kind=kind)
    assert list(effective_rates(model)) == EXPECTED[name]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["bert", "deberta-v2", "wav2vec2", "wavlm"])
def test_other_dtypes(name, dtype):
    model = zoo.build(name).to(dtype)
    wanted = spread(model)
    assert effective_rates(model) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("p", [0.0, 1e-6, 0.999, 1.0])
@pytest.mark.parametrize("name", ["bert", "wav2vec2", "wavlm"])
def test_extreme_rates(name, p):
    model = zoo.build(name)
    for site in dropout_sites(model).values():
        site.set(p)
    assert effective_rates(model) == dict.fromkeys(EXPECTED[name], p)


def test_random_layers_and_masks_are_off_while_measuring():
    model = zoo.build("wav2vec2", layerdrop=0.99, mask_time_prob=0.9, mask_time_length=2, apply_spec_augment=True)
    assert list(effective_rates(model)) == EXPECTED["wav2vec2"]
    assert model.config.layerdrop == 0.99
    assert model.config.apply_spec_augment is True


def traces(model):
    """Everything that a forward pass could leave behind."""
    return {
        "flags": [m.training for m in model.modules()],
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "buffers": [b.clone() for b in model.buffers()],
        "gradients": {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None},
        "config": model.config.to_dict(),
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "plain": [{k: v for k, v in vars(m).items() if isinstance(v, (int, float, str))} for m in model.modules()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
    }


def same(after, before):
    assert after.keys() == before.keys()
    for name, value in before.items():
        if name in ("state", "buffers", "gradients", "torch"):
            torch.testing.assert_close(after[name], value, rtol=0, atol=0, equal_nan=True, msg=name)
        else:
            assert after[name] == value, name


class Counting(nn.Module):
    """A layer that keeps a statistic and draws from every generator."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        random.random()
        np.random.random()
        torch.rand(1)
        return x


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", ["bert", "wav2vec2", "wavlm"])
def test_measuring_leaves_no_trace(name, fails):
    model = zoo.build(name, layerdrop=0.5, mask_time_prob=0.5, mask_time_length=2)
    model.train()(**zoo.batch(model)).loss.backward()
    encoder = encoder_of(model)
    block = encoder.encoder.layer[1] if name == "bert" else encoder.encoder.layers[1]
    block.eval()  # a part that its owner keeps in evaluation mode
    block.counting = Counting()
    block.register_forward_pre_hook(lambda module, args: (module.counting(args[0]), *args[1:]))
    if fails:
        block.register_forward_hook(lambda *_: 1 / 0)
    before = traces(model)
    if fails:
        with pytest.raises(ZeroDivisionError):
            effective_rates(model)
    else:
        effective_rates(model)
    assert block.counting.seen == 0
    same(traces(model), before)
    if not fails:
        model.eval()(**zoo.batch(model))  # in training the layer may be skipped at random
        assert block.counting.seen == 1


def test_the_head_does_not_run():
    model = zoo.build("bert")
    model.classifier.register_forward_hook(lambda *_: pytest.fail("the head ran"))
    assert len(effective_rates(model)) == 7


def test_a_masked_batch_before_does_not_matter():
    model = zoo.build("bert")
    apply(model, KLNorm(placement="internal", schedule="linear"))
    model.train()(**zoo.batch(model, rows=3)).loss.backward()
    before = traces(model)
    assert list(effective_rates(model)) == EXPECTED["bert"]
    same(traces(model), before)
    model(**zoo.batch(model, rows=3)).loss.backward()


def test_a_rate_frozen_at_construction_is_reported_as_it_runs():
    model = freeze_attention(zoo.build("bert"))
    dropout_sites(model)["layer.1.attention_probs"].set(0.4)
    assert effective_rates(model)["layer.1.attention_probs"] == 0.1


def test_a_backend_that_ignores_the_rate_is_caught_by_its_zeros(monkeypatch):
    model = zoo.build("bert", "eager")
    monkeypatch.setattr(F._VF, "dropout", lambda x, p, training: x)
    with pytest.raises(RuntimeError, match=r"embeddings: .*dropout 0\.1, but 0 of \d+ elements were zeroed"):
        effective_rates(model)


def test_a_backend_that_drops_too_much_is_caught_by_its_zeros(monkeypatch):
    model = zoo.build("bert", "eager", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    monkeypatch.setattr(F._VF, "dropout", lambda x, p, training: x * (torch.rand_like(x) > 0.02))
    with pytest.raises(RuntimeError, match="embeddings: .*dropout 0, but"):
        effective_rates(model)


def test_dropout_outside_every_site_is_refused():
    model = zoo.build("bert")
    model.bert.encoder.layer[0].intermediate.register_forward_hook(lambda m, a, out: F.dropout(out, 0.2))
    with pytest.raises(RuntimeError, match=r"dropout of rate 0\.2 runs in encoder\.layer\.0\.intermediate"):
        effective_rates(model)


def test_an_operation_that_cannot_be_seen_is_named():
    model = zoo.build("bert")

    class Silent(nn.Dropout):
        def forward(self, x):
            return x * torch.bernoulli(torch.full_like(x, 1 - self.p))

    model.bert.embeddings.dropout = Silent(0.1)
    with pytest.raises(RuntimeError, match="no dropout was seen at embeddings"):
        effective_rates(model)


def test_two_rates_at_one_site_are_refused():
    model = zoo.build("bert")
    model.bert.encoder.layer[0].attention.self.register_forward_hook(lambda m, a, o: (F.dropout(o[0], 0.3), *o[1:]))
    with pytest.raises(RuntimeError, match="layer.0.attention_probs runs at more than one rate: 0.1, 0.3"):
        effective_rates(model)


@pytest.mark.parametrize(
    ("zeros", "trials", "p", "plausible"),
    [(0, 1000, 0.0, True), (1, 1000, 0.0, False), (1000, 1000, 1.0, True), (999, 1000, 1.0, False),
     (100, 1000, 0.1, True), (130, 1000, 0.1, True), (200, 1000, 0.1, False), (20, 1000, 0.1, False),
     (1, 1000, 1e-5, True)],
)  # fmt: skip
def test_zero_counts(zeros, trials, p, plausible):
    assert _plausible(zeros, trials, p) is plausible


@pytest.mark.parametrize("name", zoo.NAMES)
def test_dummy_inputs_fit_the_config(name):
    encoder = encoder_of(zoo.build(name))
    inputs = dummy_inputs(encoder)
    assert encoder(**inputs).last_hidden_state.shape == (4, 32, zoo.WIDTH)
    if name in zoo.TEXT:
        assert (inputs["input_ids"] != encoder.config.pad_token_id).all()


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet"])
def test_dummy_inputs_fit_few_positions(name):
    encoder = encoder_of(zoo.build(name, max_position_embeddings=8))
    assert 4 <= dummy_inputs(encoder)["input_ids"].shape[1] <= 8
    assert encoder(**dummy_inputs(encoder)).last_hidden_state.isfinite().all()


def test_an_encoder_with_other_inputs_is_refused():
    encoder = zoo.build("bert", kind="encoder")
    encoder.main_input_name = "pixel_values"
    with pytest.raises(ValueError, match="cannot make inputs for BertModel, which takes pixel_values"):
        dummy_inputs(encoder)
