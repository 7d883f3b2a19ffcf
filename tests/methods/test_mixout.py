"""Mixout: the formula and its gradient, where it acts, and that nothing is left of it in evaluation."""

import pytest
import torch
from torch import nn

from klnorm_lib import Dropout, KLNorm, Mixout, apply, load
from klnorm_lib.methods.mixout import mix
from klnorm_lib.sites.walk import encoder_of
from tests import zoo
from tests.methods.loops import NO_DROPOUT


def pair(rows=40, columns=50, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(rows, columns, generator=g, dtype=dtype) for _ in range(2)]


def moved(p=0.5, name="bert", **config):
    """A model whose weights have left those it was given to Mixout with, as after some training."""
    model = zoo.build(name, **{**NO_DROPOUT, **config})
    apply(model, Mixout(p=p))
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder_of(model).parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return model


def mixing(model):
    return {name: m for name, m in model.named_modules() if hasattr(m, "mixout_p")}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_value_is_the_published_formula_with_one_draw_an_input(p):
    w, u = pair(5, 2000)
    torch.manual_seed(0)
    mixed = mix(w, u, p)
    when = {m: (m * w + (1 - m) * u - p * u) / (1 - p) for m in (0, 1)}
    is_kept, is_pretrained = (torch.isclose(mixed, when[m], rtol=1e-12, atol=1e-12).all(0) for m in (1, 0))
    assert (is_kept ^ is_pretrained).all()
    assert is_kept.double().mean().item() == pytest.approx(1 - p, abs=4 * (p * (1 - p) / 2000) ** 0.5)


def test_it_is_dropout_of_the_inputs_to_what_has_changed():
    w, u = pair(6, 30)
    x = torch.randn(8, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    mixed = x @ mix(w, u, 0.4).T
    torch.manual_seed(0)
    kept = torch.rand(30, dtype=torch.float64) >= 0.4
    torch.testing.assert_close(mixed, x @ u.T + (x * kept / 0.6) @ (w - u).T)


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_mean_over_masks_is_the_weight(p):
    w, u = pair(2, 200)
    torch.manual_seed(0)
    draws = torch.stack([mix(w, u, p) for _ in range(4000)])
    error = (draws.mean(0) - w) / ((w - u).abs() * (p / (1 - p) / 4000) ** 0.5)
    assert error.abs().max() < 4.5
    assert error.std() == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.9])
def test_gradient_is_that_of_the_formula(p):
    w, u = pair(3, 60)
    w.requires_grad_()

    def seeded(weight):
        torch.manual_seed(3)
        return mix(weight, u, p)

    assert torch.autograd.gradcheck(seeded, (w,))
    (gradient,) = torch.autograd.grad(seeded(w).sum(), w)
    assert {round(v, 9) for v in gradient.flatten().tolist()} <= {0.0, round(1 / (1 - p), 9)}
    assert gradient.max().item() == pytest.approx(1 / (1 - p))


def test_linear_layers_of_the_encoder_and_no_others():
    model = zoo.build("bert")
    linear = {n for n, m in encoder_of(model).named_modules() if isinstance(m, nn.Linear)}
    report = apply(model, Mixout())
    assert {n.removeprefix("bert.") for n in mixing(model)} == linear
    assert len(report.changed) == len(linear) == 6 * zoo.LAYERS + 1
    assert report.added_parameters == 0
    assert not report.callbacks


def test_weights_that_have_not_moved_stay_what_they_are_also_in_training():
    plain = zoo.build("bert", **NO_DROPOUT).train()
    model = zoo.build("bert", **NO_DROPOUT).train()
    apply(model, Mixout(p=0.9))
    assert torch.equal(model(**zoo.batch(model)).logits, plain(**zoo.batch(plain)).logits)


def test_p_zero_is_no_mixout():
    model, plain = moved(p=0.0).train(), moved(p=0.9)
    reference = zoo.build("bert", **NO_DROPOUT)
    reference.load_state_dict({k: v for k, v in plain.state_dict().items() if ".mixout." not in k})
    reference.train()
    losses = [m(**zoo.batch(m)).loss for m in (model, reference)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert (ours.grad is None and theirs.grad is None) or torch.equal(ours.grad, theirs.grad), name


def test_evaluation_is_the_plain_model_and_draws_nothing():
    model = moved(p=0.9).eval()
    reference = zoo.build("bert", **NO_DROPOUT)
    reference.load_state_dict({k: v for k, v in model.state_dict().items() if ".mixout." not in k})
    before = torch.get_rng_state()
    assert torch.equal(model(**zoo.batch(model)).logits, reference(**zoo.batch(reference)).logits)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_every_linear_layer_of_every_architecture_is_mixed_where_it_is_used(name):
    """With p close to 1 and pretrained weights of zero, whatever is used in training is mixed to (nearly) zero."""
    model = zoo.build(name)
    apply(model, Mixout(p=0.999999))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.train()
    for path, layer in mixing(model).items():
        layer.mixout.weight.zero_()
        torch.manual_seed(0)
        assert layer.weight.count_nonzero() == 0, path
    with torch.no_grad():
        zeroed = encoder_of(model)(**zoo.batch(model, labels=False)).last_hidden_state
        for layer in mixing(model).values():
            layer._parameters["weight"].zero_()
        expected = encoder_of(model.eval())(**zoo.batch(model, labels=False)).last_hidden_state
    torch.testing.assert_close(zeroed, expected, rtol=1e-4, atol=1e-5)


def test_each_forward_draws_its_own_mask_from_the_global_generator():
    model = moved().train()
    torch.manual_seed(0)
    first, second = (model(**zoo.batch(model)).loss.item() for _ in range(2))
    torch.manual_seed(0)
    assert model(**zoo.batch(model)).loss.item() == first
    assert first != second


def test_a_saved_model_comes_back_with_both_weights(tmp_path):
    model = moved()
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    for (name, ours), theirs in zip(mixing(model).items(), mixing(loaded).values(), strict=True):
        assert torch.equal(ours.mixout.weight, theirs.mixout.weight), name
        assert not torch.equal(ours.mixout.weight, theirs.weight), name
    losses = []
    for each in (model, loaded):
        torch.manual_seed(0)
        losses.append(each.train()(**zoo.batch(each)).loss)
    assert torch.equal(*losses)
    plain = type(zoo.build("bert")).from_pretrained(tmp_path)
    assert torch.equal(plain.eval()(**zoo.batch(plain)).logits, model.eval()(**zoo.batch(model)).logits)


def test_pretrained_weights_follow_the_model_to_another_precision():
    model = moved().to(torch.bfloat16).train()
    assert {layer.mixout.weight.dtype for layer in mixing(model).values()} == {torch.bfloat16}
    loss = model(**zoo.batch(model)).loss
    loss.backward()
    assert loss.dtype == torch.bfloat16
    assert torch.isfinite(loss)


def test_it_goes_together_with_other_methods():
    model = zoo.build("bert")
    report = apply(model, Mixout(), Dropout(p=0.05), KLNorm())
    assert {line.split(":")[0] for line in report.changed} == {"mixout", "dropout", "klnorm"}
    model.train()(**zoo.batch(model)).loss.backward()


def test_only_layers_that_train_are_mixed():
    model = zoo.build("bert")
    model.bert.encoder.layer[0].requires_grad_(False)
    apply(model, Mixout())
    assert not [name for name in mixing(model) if name.startswith("bert.encoder.layer.0.")]
    assert mixing(model)
    frozen = zoo.build("bert")
    frozen.bert.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        apply(frozen, Mixout())


def test_lora_is_refused():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(zoo.build("bert"), LoraConfig(target_modules=["query", "value"], modules_to_save=["pooler"]))
    report = apply(model, Mixout())  # the pooler trains, and is the only one
    assert [line for line in report.changed if line.startswith("mixout")] == report.changed[1:]
    assert len(report.changed) == 2  # with the classifier, which nobody asked peft to train
    model = get_peft_model(zoo.build("bert"), LoraConfig(target_modules=["query", "value"]))
    with pytest.raises(ValueError, match="LoRA"):
        apply(model, Mixout())


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_a_rate_out_of_range_raises(p):
    with pytest.raises(ValueError, match="below 1"):
        Mixout(p=p)


@pytest.mark.parametrize("p", ["0.5", None, True])
def test_a_rate_that_is_no_number_raises(p):
    with pytest.raises(TypeError, match="number"):
        Mixout(p=p)
