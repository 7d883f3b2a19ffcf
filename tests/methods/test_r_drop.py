"""R-Drop: the divergence in closed form, the mean of two task losses, and that nothing is left of it in evaluation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertForMaskedLM

from klnorm_lib import VIB, Dropout, KLNorm, RDrop, apply, auxiliary_loss
from klnorm_lib.methods.r_drop import divergence
from tests import zoo
from tests.methods.loops import NO_DROPOUT, accumulated


def changed(*methods, name="bert", **config):
    model = zoo.build(name, **config)
    apply(model, *methods)
    return model.train()


def logits(outputs=4, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    return [3 * torch.randn(6, outputs, generator=g, dtype=dtype) for _ in range(2)]


def seeded(model, inputs):
    torch.manual_seed(5)
    return model(**inputs)


def both_passes(inputs, **config):
    """What the plain model gives in the two passes that R-Drop makes from the same seed."""
    plain = zoo.build("bert", **config).train()
    torch.manual_seed(5)
    return [plain(**inputs) for _ in range(2)]


def test_divergence_is_the_mean_of_the_two_kl_divergences_of_torch():
    first, second = logits()
    p, q = (torch.distributions.Categorical(logits=z) for z in (first, second))
    expected = (torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)) / 2
    torch.testing.assert_close(divergence(first, second), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(divergence(second, first), expected, rtol=1e-12, atol=0)
    p, q = (torch.distributions.Bernoulli(logits=z) for z in (first, second))
    expected = (torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)).sum(-1) / 2
    torch.testing.assert_close(divergence(first, second, "multi_label_classification"), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(divergence(first, second, "regression"), ((first - second) ** 2).mean(-1))


def test_of_two_classes_it_is_half_the_product_of_two_differences():
    z, w = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    gap = torch.sigmoid(torch.tensor(1.0)) - torch.sigmoid(torch.tensor(-1.0))
    torch.testing.assert_close(divergence(z, w), 0.5 * gap[None] * 2.0)


def test_it_is_computed_in_float32_and_stays_finite_where_a_probability_is_zero():
    first, second = (z.bfloat16() for z in logits())
    assert divergence(first, second).dtype == torch.float32
    torch.testing.assert_close(divergence(first, second), divergence(first.float(), second.float()))
    far = torch.tensor([[200.0, -200.0]])
    torch.testing.assert_close(divergence(far, -far), torch.tensor([400.0]))


@pytest.mark.parametrize("kind", [None, "multi_label_classification", "regression"])
def test_gradient(kind):
    first, second = (z.requires_grad_() for z in logits(3))
    assert torch.autograd.gradcheck(lambda a, b: divergence(a, b, kind), (first, second))


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_loss_is_the_mean_of_both_passes_plus_alpha_times_the_divergence(alpha):
    model = changed(RDrop(alpha=alpha))
    inputs = zoo.batch(model)
    outputs = seeded(model, inputs)
    first, second = both_passes(inputs)
    assert not torch.equal(first.logits, second.logits)
    penalty = alpha * divergence(first.logits, second.logits).mean()
    torch.testing.assert_close(outputs.loss, (first.loss + second.loss) / 2 + penalty)
    torch.testing.assert_close(auxiliary_loss(model).as_subclass(torch.Tensor), penalty)
    assert torch.equal(outputs.logits, first.logits)
    as_tuple = seeded(model, inputs | {"return_dict": False})
    assert torch.equal(as_tuple[0], outputs.loss)
    assert torch.equal(as_tuple[1], outputs.logits)


def test_gradient_flows_through_both_passes():
    model = changed(RDrop(alpha=0.7))
    inputs = zoo.batch(model)
    seeded(model, inputs).loss.backward()
    plain = zoo.build("bert").train()
    torch.manual_seed(5)
    first, second = (plain(**inputs) for _ in range(2))
    ((first.loss + second.loss) / 2 + 0.7 * divergence(first.logits, second.logits).mean()).backward()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


@pytest.mark.parametrize("kind", ["regression", "multi_label_classification"])
def test_other_kinds_of_task(kind):
    config = {"problem_type": kind, **({"num_labels": 1} if kind == "regression" else {})}
    model = changed(RDrop(alpha=0.7), **config)
    inputs = zoo.batch(model)
    inputs["labels"] = torch.rand(4, model.config.num_labels).squeeze(-1)
    loss = seeded(model, inputs).loss
    first, second = both_passes(inputs, **config)
    expected = (first.loss + second.loss) / 2 + 0.7 * divergence(first.logits, second.logits, kind).mean()
    torch.testing.assert_close(loss, expected)


def test_one_output_is_regression_without_being_told():
    model = changed(RDrop(alpha=0.7), num_labels=1)
    inputs = zoo.batch(model) | {"labels": torch.rand(4)}
    seeded(model, inputs)
    first, second = both_passes(inputs, num_labels=1)
    expected = 0.7 * F.mse_loss(first.logits, second.logits)
    torch.testing.assert_close(auxiliary_loss(model).as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_without_dropout_the_penalty_is_exactly_zero(name):
    model = changed(RDrop(alpha=10.0), Dropout(p=0.0), name=name)
    model.dropout.p = 0.0  # the classifier's
    outputs = model(**zoo.batch(model))
    assert auxiliary_loss(model).item() == 0.0
    torch.testing.assert_close(outputs.loss, model.eval()(**zoo.batch(model)).loss)


def test_evaluation_is_one_pass_of_the_plain_model():
    model, plain = changed(RDrop()).eval(), zoo.build("bert")
    calls = []
    model.bert.register_forward_hook(lambda *_: calls.append(1))
    before = torch.get_rng_state()
    ours, theirs = model(**zoo.batch(model)), plain(**zoo.batch(plain))
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.loss, theirs.loss)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(calls) == 1
    assert auxiliary_loss(model) == 0


class PassOf(nn.Module):
    """In place of dropout: scales the rows of the first pass of every forward otherwise than those of the second."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * (1.5 if self.calls % 2 else 0.5)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradient_is_that_of_the_whole_batch(parts):
    model = changed(RDrop(alpha=2.0), **NO_DROPOUT).double()
    model.dropout = PassOf()
    inputs = zoo.batch(model, rows=8)
    model(**inputs)
    assert auxiliary_loss(model) > 1e-4
    whole = accumulated(model, inputs, 1)
    torch.testing.assert_close(accumulated(model, inputs, parts), whole, rtol=1e-9, atol=1e-12)


def test_reentrant_checkpointing_recomputes_both_passes():
    def gradients(checkpointing):
        model = changed(RDrop(alpha=0.5))
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": True})
        seeded(model, zoo.batch(model)).loss.backward()
        return {n: p.grad for n, p in model.named_parameters()}

    plain, checkpointed = gradients(False), gradients(True)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


def test_penalties_of_other_methods_are_averaged_over_the_passes():
    inputs = zoo.batch(zoo.build("bert"))
    one, two = changed(KLNorm(form="C", beta=0.5)), changed(RDrop(alpha=0.7), KLNorm(form="C", beta=0.5))
    torch.manual_seed(5)
    passes = []
    for _ in range(2):
        outputs = one(**inputs)
        passes.append((outputs.loss, outputs.logits, auxiliary_loss(one).as_subclass(torch.Tensor)))
    assert passes[0][2] > 0
    loss = seeded(two, inputs).loss
    divergent = 0.7 * divergence(passes[0][1], passes[1][1]).mean()
    torch.testing.assert_close(loss, (passes[0][0] + passes[1][0]) / 2 + divergent)
    expected = (passes[0][2] + passes[1][2]) / 2 + divergent
    torch.testing.assert_close(auxiliary_loss(two).as_subclass(torch.Tensor), expected)
    loss.backward()


def test_it_goes_together_with_dropout_and_with_draws_of_the_bottleneck():
    model = changed(RDrop(), Dropout(p=0.2), VIB(bottleneck=8, samples=3, schedule="constant"))
    outputs = model(**zoo.batch(model))
    assert outputs.logits.shape == (4, zoo.LABELS)
    outputs.loss.backward()


def test_nothing_of_it_is_saved():
    model = zoo.build("bert")
    names = set(model.state_dict())
    apply(model, RDrop())
    assert set(model.state_dict()) == names


def test_a_loss_from_the_logits_without_labels_is_refused():
    model = changed(RDrop())
    inputs = zoo.batch(model)
    labels = inputs.pop("labels")
    predicted = model(**inputs).logits  # a draw of dropout for a look at the predictions: no gradient, no complaint
    assert predicted.shape == (4, zoo.LABELS)
    with pytest.raises(RuntimeError, match="pass labels"):
        F.cross_entropy(predicted, labels).backward()
    with pytest.raises(RuntimeError, match="reached no loss"):
        F.cross_entropy(model(**zoo.batch(model)).logits, labels).backward()


def test_a_loss_of_ones_own_beside_that_of_the_model_is_fine():
    model = changed(RDrop())
    outputs = model(**zoo.batch(model))
    (outputs.loss + outputs.logits.square().mean()).backward()


def test_models_without_one_prediction_an_example_are_refused():
    model = BertForMaskedLM(zoo.build("bert").config)
    apply(model, RDrop())
    inputs = zoo.batch(model, labels=False)
    with pytest.raises(ValueError, match="one prediction an example"):
        model.train()(**inputs, labels=inputs["input_ids"])
    bare = zoo.build("bert", kind="encoder")
    with pytest.raises(ValueError, match="without a head"):
        apply(bare, RDrop())
    assert not hasattr(bare, "r_drop")


@pytest.mark.parametrize(("alpha", "error"), [(-1.0, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_bad_strengths(alpha, error):
    with pytest.raises(error, match="alpha"):
        RDrop(alpha=alpha)
