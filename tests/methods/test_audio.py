"""KL-Norm in place of the norms of audio encoders: the same function at first, honest about padding and gain."""

import pytest
import torch
from torch import nn

from klnorm_lib import KLNorm, apply, auxiliary_loss, effective_rates
from klnorm_lib.methods.klnorm import KLNormLayer
from klnorm_lib.sites import encoder_of, norm_paths
from tests import zoo
from tests.methods.loops import STILL, accumulated, stir, trainer_for, weights
from tests.sites.test_sites import EXPECTED

BOTH = ("wav2vec2", "wav2vec2-layer")  # a group normalisation, and layer normalisations, in the feature extractor
INTERNAL = {
    form: KLNorm(form=form, placement="internal", beta=0.1, rank=4, train_base=form == "A") for form in ("A", "B", "C")
}


def build(name, **config):
    """Without dropout, and with an affine part in every norm that is not the identity."""
    model = zoo.build(name, **{**STILL["wav2vec2"], **config})
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for path in norm_paths(model):
            for p in model.get_submodule(path).parameters():
                p.add_(0.3 * torch.randn(p.shape, generator=g))
    return model


def changed(name, method, **config):
    model = build(name, **config)
    report = apply(model, method)
    return stir(model), report


def padded(inputs, samples):
    """The same batch behind ``samples`` more samples of padding."""
    longer = {k: nn.functional.pad(inputs[k], (0, samples)) for k in ("input_values", "attention_mask")}
    return inputs | longer


def rows_alone(inputs):
    """Each example on its own, without padding."""
    for i, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
        yield {k: v[i : i + 1, :length] if v.ndim == 2 else v[i : i + 1] for k, v in inputs.items()}


@pytest.mark.parametrize(
    ("name", "form"),
    [*((name, "B") for name in zoo.AUDIO + zoo.KIN), *((name, form) for name in BOTH for form in "AC")],
)
def test_the_encoder_starts_as_the_same_function(name, form):
    plain, model = build(name), build(name)
    inputs = zoo.batch(plain, labels=False)
    report = apply(model, INTERNAL[form])
    new = [m for m in encoder_of(model).modules() if isinstance(m, KLNormLayer)]
    affine = [p for p in norm_paths(plain) if plain.get_submodule(p).weight is not None]
    assert len(report.changed) == len(new) == len(affine)
    assert any("feature_extractor.conv_layers.0.layer_norm" in line for line in report.changed)
    before, after = (encoder_of(m)(**inputs).last_hidden_state for m in (plain, model))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5 * before.abs().max().item())
    logits = model(**inputs).logits
    torch.testing.assert_close(logits, plain(**inputs).logits, rtol=1e-4, atol=1e-6)
    assert (auxiliary_loss(model) > 0) == (form == "C")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("form", ["A", "B"])
def test_every_new_parameter_gets_a_gradient(name, form):
    model, _ = changed(name, INTERNAL[form])
    model.train()(**zoo.batch(model)).loss.backward()
    new = {n: p for n, p in model.named_parameters() if ".heads." in n or "LayerNorm." in n}
    extractor = {n: p for n, p in new.items() if "layer_norm" in n and "feature_extractor" in n}
    assert extractor
    assert all(p.grad.abs().sum() > 0 for p in extractor.values())
    convolution = encoder_of(model).feature_extractor.conv_layers[0].conv
    assert convolution.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("form", ["A", "B"])
def test_penalty_is_the_mean_over_real_frames_of_each_layer(name, form):
    model, _ = changed(name, INTERNAL[form])
    model.double().train()
    inputs = zoo.batch(model)
    inputs["input_values"] = inputs["input_values"].double()
    seen = []
    layers = [m for m in model.modules() if isinstance(m, KLNormLayer)]
    for layer in layers:
        layer._kl = lambda mean, std, kl=layer._kl: seen.append(kl(mean, std)) or seen[-1]
    model(**inputs)
    real = inputs["attention_mask"].sum(1).tolist()
    expected = 0.0
    for kl in seen:
        if kl.ndim:
            total, counts = zoo.SAMPLES, list(real)
            for kernel, stride in zip(model.config.conv_kernel, model.config.conv_stride, strict=True):
                total, counts = (total - kernel) // stride + 1, [(n - kernel) // stride + 1 for n in counts]
                if total == kl.shape[1]:
                    break
            kl = torch.stack([row[:n].mean() for row, n in zip(kl, counts, strict=True)]).mean()
        expected += 0.1 * kl
    assert len(seen) == len(layers)
    torch.testing.assert_close(auxiliary_loss(model).as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize("form", ["A", "B"])
def test_padding_is_not_seen_behind_layer_norm(form):
    model, _ = changed("wav2vec2-layer", INTERNAL[form])
    inputs = zoo.batch(model)
    logits, penalty = model(**inputs).logits, auxiliary_loss(model).item()
    assert penalty > 0
    longer = model(**padded(inputs, 777)).logits
    torch.testing.assert_close(longer, logits, rtol=1e-4, atol=1e-6)
    assert auxiliary_loss(model).item() == pytest.approx(penalty, rel=1e-5)
    alone = [(model(**row).logits, auxiliary_loss(model).item()) for row in rows_alone(inputs)]
    torch.testing.assert_close(torch.cat([x for x, _ in alone]), logits, rtol=1e-4, atol=1e-6)
    assert sum(kl for _, kl in alone) / len(alone) == pytest.approx(penalty, rel=1e-5)


def test_group_norm_sees_padding_as_the_untouched_model_does():
    plain = build("wav2vec2")
    inputs = zoo.batch(plain)
    shift = plain(**padded(inputs, 777)).logits - plain(**inputs).logits
    assert shift.abs().max() > 1e-5  # the model's own statistics are over padded frames too
    model = build("wav2vec2")
    apply(model, INTERNAL["B"])
    torch.testing.assert_close(
        model(**padded(inputs, 777)).logits - model(**inputs).logits, shift, rtol=0.02, atol=1e-7
    )
    # Which frames the mean is over does not depend on padding: a KL that is the same everywhere stays as it is.
    static, _ = changed("wav2vec2", INTERNAL["A"])
    penalties = []
    for batch in (inputs, padded(inputs, 777), *rows_alone(inputs)):
        static(**batch)
        penalties.append(auxiliary_loss(static).item())
    assert penalties == pytest.approx([penalties[0]] * len(penalties), rel=1e-6)


@pytest.mark.parametrize("name", BOTH)
def test_loudness_of_the_recording_does_not_matter(name):
    model, _ = changed(name, INTERNAL["B"], conv_bias=False)
    model.double()
    inputs = zoo.batch(model)
    inputs["input_values"] = inputs["input_values"].double()
    logits, penalty = model(**inputs).logits, auxiliary_loss(model).item()
    loud = model(**inputs | {"input_values": 100 * inputs["input_values"]}).logits
    torch.testing.assert_close(loud, logits, rtol=1e-3, atol=1e-5 * logits.abs().max().item())
    assert auxiliary_loss(model).item() == pytest.approx(penalty, rel=1e-3)


@pytest.mark.parametrize("form", ["A", "B"])
def test_gradient_is_the_same_under_accumulation(form):
    model, _ = changed("wav2vec2-layer", INTERNAL[form])
    model.double().train()
    inputs = zoo.batch(model, rows=8)
    inputs["input_values"] = inputs["input_values"].double()
    whole = accumulated(model, inputs, 1)
    for parts in (2, 8):
        torch.testing.assert_close(accumulated(model, inputs, parts), whole, rtol=1e-8, atol=1e-12)


def test_checkpointing_gives_the_same_gradients():
    def gradients(reentrant):
        model, _ = changed("wav2vec2-layer", INTERNAL["B"])
        model.train()
        if reentrant is not None:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model(**zoo.batch(model)).loss.backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(None), gradients(False)
    assert plain.keys() == checkpointed.keys()
    for key, gradient in plain.items():
        torch.testing.assert_close(checkpointed[key], gradient, msg=key)
    with pytest.raises(RuntimeError, match="use_reentrant"):
        gradients(True)


@pytest.mark.parametrize("name", BOTH)
def test_stock_trainer_moves_new_layers_and_nothing_frozen(name, tmp_path):
    model = build(name)
    model.freeze_feature_encoder()
    method = KLNorm(placement="internal", schedule="linear", warmup_steps=2, beta=0.1)
    report = apply(model, method)
    before = weights(stir(model))
    trainer_for(model, report, tmp_path, max_steps=3).train()
    moved = {k for k, v in weights(model).items() if not torch.equal(v, before[k])}
    extractor = {k for k in before if "feature_extractor" in k}
    assert {k for k in extractor if ".heads." in k or k.endswith(".step")} <= moved
    assert not {k for k in extractor if ".conv." in k or "base_" in k} & moved


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", BOTH)
def test_pooled_layer_reads_the_mean_of_the_projected_frames(name, weighted):
    model, report = changed(name, KLNorm(beta=0.1), use_weighted_layer_sum=weighted)
    assert report.changed == ["klnorm: form B layer before classifier"]
    seen = {}
    model.projector.register_forward_hook(lambda m, args, out: seen.update(frames=out.clone()))
    model.classifier.layer.register_forward_pre_hook(lambda m, args: seen.update(pooled=args[0]))
    inputs = zoo.batch(model)
    model(**inputs)
    real = model._get_feature_vector_attention_mask(seen["frames"].shape[1], inputs["attention_mask"])
    mean = torch.stack([frames[keep].mean(0) for frames, keep in zip(seen["frames"], real, strict=True)])
    torch.testing.assert_close(seen["pooled"], mean)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("method", [KLNorm(placement="internal"), KLNorm()], ids=["internal", "pooled"])
def test_dropout_sites_are_measured_beside_it(name, method):
    model = zoo.build(name, attention_dropout=0.11, hidden_dropout=0.12, activation_dropout=0.13)
    apply(model, method)
    rates = effective_rates(model)
    assert list(rates) == EXPECTED[name]
    assert rates["layer.1.ffn_hidden"] == 0.13
    assert rates["layer.0.attention_probs"] == 0.11
