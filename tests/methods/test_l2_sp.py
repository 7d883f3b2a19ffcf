"""L2-SP: the gradient is alpha times the distance, in any loop; the start is kept, and not saved."""

import pytest
import torch

from klnorm_lib import L2SP, KLNorm, Mixout, NormHead, RDrop, apply, auxiliary_loss, load
from klnorm_lib.sites.walk import encoder_of
from tests import zoo
from tests.methods.loops import NO_DROPOUT, trainer_for


def moved(*methods, name="bert", **config):
    """A model whose weights have left those that it had at ``apply``, as after some training, and those."""
    model = zoo.build(name, **{**(NO_DROPOUT if name == "bert" else {}), **config})
    apply(model, *methods)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return model.train(), start


def pulled(model):
    inside = {id(p) for p in encoder_of(model).parameters()}
    return {n for n, p in model.named_parameters() if id(p) in inside and ".pooler." not in n}


def gradients(model, inputs):
    model.zero_grad()
    model(**inputs).loss.backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("name", zoo.NAMES)
def test_gradient_is_alpha_times_the_distance(name):
    model, start = moved(L2SP(alpha=0.5), name=name)
    auxiliary = model(**zoo.batch(model)).loss is not None and auxiliary_loss(model).as_subclass(torch.Tensor)
    expected = sum(
        0.25 * (p - start[n]).double().square().sum() for n, p in model.named_parameters() if n in pulled(model)
    )
    assert auxiliary.item() == pytest.approx(expected.item(), rel=1e-5)
    got = torch.autograd.grad(auxiliary, list(model.parameters()), allow_unused=True)
    for (parameter_name, parameter), gradient in zip(model.named_parameters(), got, strict=True):
        if parameter_name in pulled(model):
            torch.testing.assert_close(gradient, 0.5 * (parameter - start[parameter_name]))
        else:
            assert gradient is None, parameter_name


def test_where_nothing_has_moved_the_gradient_is_that_of_the_task():
    model, plain = zoo.build("bert", **NO_DROPOUT).train(), zoo.build("bert", **NO_DROPOUT).train()
    apply(model, L2SP(alpha=100.0))
    ours, theirs = (gradients(m, zoo.batch(m)) for m in (model, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_beta_pulls_head_and_pooler_to_zero():
    with_beta, _ = moved(L2SP(alpha=0.5, beta=0.3))
    without, _ = moved(L2SP(alpha=0.5))
    inputs = zoo.batch(without)
    ours, theirs = gradients(with_beta, inputs), gradients(without, inputs)
    for name, parameter in with_beta.named_parameters():
        more = 0.0 if name in pulled(with_beta) else 0.3 * parameter.detach()
        torch.testing.assert_close(ours[name], theirs[name] + more, msg=name)
    model, _ = moved(KLNorm(), L2SP(beta=0.3, alpha=0.0))
    model(**inputs)
    got = torch.autograd.grad(auxiliary_loss(model).as_subclass(torch.Tensor), model.classifier.linear.weight)[0]
    torch.testing.assert_close(got, 0.3 * model.classifier.linear.weight)


def test_a_strong_pull_keeps_the_encoder_where_it_was_and_leaves_the_head(tmp_path):
    def distance(alpha):
        model = zoo.build("bert")
        report = apply(model, L2SP(alpha=alpha))
        start = {n: p.detach().clone() for n, p in model.named_parameters()}
        trainer_for(model, report, tmp_path, max_steps=12, optim="sgd", max_grad_norm=0.0, learning_rate=0.1).train()
        return sum((p - start[n]).square().sum().item() for n, p in model.named_parameters() if n in pulled(model))

    assert distance(9.0) < 0.3 * distance(0.0)


def test_reentrant_checkpointing_gives_the_same_gradients():
    plain, _ = moved(L2SP(alpha=0.5))
    checkpointed, _ = moved(L2SP(alpha=0.5))
    checkpointed.gradient_checkpointing_enable({"use_reentrant": True})
    ours, theirs = (gradients(m, zoo.batch(m)) for m in (checkpointed, plain))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], msg=name)


def test_autocast_and_low_precision_weights_do_not_round_the_pull():
    model, start = moved(L2SP(alpha=0.5))
    expected = sum(
        0.25 * (p - start[n]).double().square().sum() for n, p in model.named_parameters() if n in pulled(model)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**zoo.batch(model))
    assert auxiliary_loss(model).item() == pytest.approx(expected.item(), rel=1e-5)
    assert {b.dtype for b in model.l2_sp.buffers() if b.is_floating_point()} == {torch.float32}
    model.to(torch.bfloat16)
    loss = model(**zoo.batch(model)).loss
    assert auxiliary_loss(model).item() == pytest.approx(expected.item(), rel=0.05)
    loss.backward()


def test_the_start_is_not_saved_and_a_loaded_model_predicts_but_does_not_train(tmp_path):
    model, _ = moved(L2SP(alpha=0.5))
    plain_names = set(zoo.build("bert").state_dict())
    assert set(model.state_dict()) == plain_names
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    inputs = zoo.batch(model)
    with torch.no_grad():
        loaded.train()(**inputs)  # a draw of dropout may be looked at
    with pytest.raises(RuntimeError, match="build the pretrained model"):
        loaded(**inputs)
    again = zoo.build("bert", **NO_DROPOUT)
    apply(again, L2SP(alpha=0.5))
    again.load_state_dict(loaded.state_dict())
    ours, theirs = (gradients(m.train(), inputs) for m in (again, model))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_passes_pull_once():
    once, _ = moved(L2SP(alpha=0.5))
    twice, _ = moved(RDrop(alpha=1.0), L2SP(alpha=0.5))
    for model in (once, twice):
        model(**zoo.batch(model))
    torch.testing.assert_close(*(auxiliary_loss(m).as_subclass(torch.Tensor) for m in (once, twice)))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("other", [Mixout(p=0.5), KLNorm(placement="internal"), NormHead()], ids=lambda m: m.name)
def test_it_goes_together_with_methods_that_replace_layers(first, other):
    methods = (L2SP(alpha=0.5), other) if first else (other, L2SP(alpha=0.5))
    model, start = moved(*methods)
    model(**zoo.batch(model)).loss.backward()
    mine = {n for n in pulled(model) if n in start and "klnorm" not in n and ".heads." not in n}
    buffers = sum(b.numel() for b in model.l2_sp.buffers()) - 1
    matrices = {n for n in mine if n.endswith(("query.weight", "word_embeddings.weight"))}
    assert matrices
    assert buffers >= sum(dict(model.named_parameters())[n].numel() for n in matrices)
    model.l2_sp.penalty().backward()


def test_what_is_frozen_is_not_penalised_and_freezing_all_later_is_refused():
    from peft import LoraConfig, get_peft_model

    model = zoo.build("bert")
    model.bert.embeddings.requires_grad_(False)
    report = apply(model, L2SP())
    count = sum(p.numel() for n, p in model.named_parameters() if p.requires_grad and n in pulled(model))
    assert f" {count:,} parameters" in report.changed[0]
    lora = LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"])
    later = zoo.build("bert")
    apply(later, L2SP())
    later = get_peft_model(later, lora).train()
    with pytest.raises(RuntimeError, match="frozen after it was applied"):
        later(**zoo.batch(later))


@pytest.mark.parametrize(
    ("fields", "error"),
    [({"alpha": -1.0}, ValueError), ({"alpha": float("inf")}, ValueError), ({"beta": "0"}, TypeError)],
)
def test_bad_strengths(fields, error):
    with pytest.raises(error, match=next(iter(fields))):
        L2SP(**fields)
