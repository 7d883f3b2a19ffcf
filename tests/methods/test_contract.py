"""The contract: one penalty, once, in any loop; loud when something would lose it; saved, loaded, copied whole."""

import copy
import dataclasses
import json
import pickle

import pytest
import torch
from transformers import BertForQuestionAnswering

from klnorm_lib import VIB, Dropout, KLNorm, Method, MLPHead, NormHead, Report, apply, auxiliary_loss, load
from klnorm_lib.methods import from_dict
from klnorm_lib.methods.contract.undo import add_module
from klnorm_lib.methods.penalty import PenaltyLayer
from klnorm_lib.methods.schedule import Schedule
from tests import zoo
from tests.methods.loops import NO_DROPOUT, stir, trainer_for, weights

INTERNAL = KLNorm(placement="internal", beta=0.1)


def changed_model(method, name="bert", **config):
    model = zoo.build(name, **config)
    report = apply(model, method)
    return stir(model), report


@pytest.mark.parametrize("name", zoo.NAMES)
@pytest.mark.parametrize("placement", ["pooled", "internal"])
def test_every_architecture_starts_at_the_same_logits_or_normalised_ones(name, placement):
    plain = zoo.build(name)
    inputs = zoo.batch(plain, labels=False)
    model = zoo.build(name)
    apply(model, KLNorm(placement=placement))
    logits = model(**inputs).logits
    if placement == "internal":
        torch.testing.assert_close(logits, plain(**inputs).logits, rtol=1e-4, atol=1e-5)
    else:
        control = zoo.build(name)
        apply(control, NormHead("layer"))
        torch.testing.assert_close(logits, control(**inputs).logits, rtol=0, atol=1e-6)
    assert auxiliary_loss(model).item() == pytest.approx(0.0, abs=1e-6)


def test_adding_the_penalty_twice_raises():
    model, _ = changed_model(KLNorm())
    model.train()
    outputs = model(**zoo.batch(model))
    for again in (
        lambda x: outputs.loss + x,
        lambda x: x + outputs.loss,
        lambda x: outputs.loss / 4 + x,
        lambda x: outputs.loss + 0.5 * x,
        lambda x: (x / 2 + outputs.loss).mean(),
        lambda x: torch.add(input=outputs.loss, other=x),
    ):
        with pytest.raises(RuntimeError, match="already inside"):
            again(auxiliary_loss(model))
    assert (auxiliary_loss(model) * 2 + 1).item() > 1


def test_the_penalty_prints_like_a_number():
    model, _ = changed_model(KLNorm())
    model.train()
    model(**zoo.batch(model))
    penalty = auxiliary_loss(model)
    assert f"{penalty:.4f}" == f"{penalty.item():.4f}"
    assert float(f"{penalty}") == penalty.item()


def test_own_loss_from_logits_may_add_it():
    model, _ = changed_model(KLNorm(beta=0.5), **NO_DROPOUT)
    model.train()
    inputs = zoo.batch(model)
    model(**inputs).loss.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    labels = inputs.pop("labels")
    logits = model(**inputs).logits
    (torch.nn.functional.cross_entropy(logits, labels) + auxiliary_loss(model)).backward()
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name])


def test_own_loss_that_forgets_it_raises():
    model, _ = changed_model(KLNorm())
    model.train()
    inputs = zoo.batch(model)
    labels = inputs.pop("labels")
    loss = torch.nn.functional.cross_entropy(model(**inputs).logits, labels)
    with pytest.raises(RuntimeError, match="reached no loss"):
        loss.backward()


@pytest.mark.parametrize("method", [KLNorm(), INTERNAL, VIB(schedule="constant")], ids=["pooled", "internal", "vib"])
def test_own_loss_that_ignores_outputs_loss_raises_although_labels_were_given(method):
    model, _ = changed_model(method)
    model.train()
    inputs = zoo.batch(model)
    weights_of_classes = torch.tensor([1.0, 2.0, 3.0])
    own = torch.nn.functional.cross_entropy(model(**inputs).logits, inputs["labels"], weights_of_classes)
    with pytest.raises(RuntimeError, match="reached no loss"):
        own.backward()
    outputs = model(**inputs)
    distilled = outputs.loss + outputs.logits.square().mean()  # outputs.loss and more: the penalty is in it
    distilled.backward()


def test_loading_weights_between_two_forwards_is_no_optimiser_step():
    model, _ = changed_model(KLNorm(schedule="linear"))
    model.train()
    model(**zoo.batch(model)).loss.backward()
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    model(**zoo.batch(model))


def test_padding_does_not_change_the_penalty():
    model, _ = changed_model(INTERNAL, **NO_DROPOUT)
    model.train()
    inputs = zoo.batch(model, rows=4)
    model(**inputs)
    together = auxiliary_loss(model).item()
    alone = []
    for i in range(4):
        length = int(inputs["attention_mask"][i].sum())
        model(**{k: (v[i : i + 1, :length] if v.ndim == 2 else v[i : i + 1]) for k, v in inputs.items()})
        alone.append(auxiliary_loss(model).item())
    assert together == pytest.approx(sum(alone) / 4, rel=1e-5)


def test_encoder_alone_runs_after_a_batch_of_another_shape():
    model, _ = changed_model(INTERNAL)
    model(**zoo.batch(model, rows=4))
    alone = zoo.batch(model, rows=2, labels=False)
    hidden = model.bert(**{k: v[:, :9] for k, v in alone.items()}).last_hidden_state
    assert hidden.shape == (2, 9, zoo.WIDTH)


def test_stock_trainer_takes_the_same_step_at_any_accumulation(tmp_path):
    def one_step(accumulate):
        model, report = changed_model(KLNorm(beta=0.5), **NO_DROPOUT)
        trainer_for(
            model, report, tmp_path, max_steps=1, gradient_accumulation_steps=accumulate, optim="sgd",
            per_device_train_batch_size=16 // accumulate, max_grad_norm=0.0, learning_rate=0.1,
        ).train()  # fmt: skip
        return weights(model)

    reference = one_step(1)
    for accumulate in (2, 4):
        for key, value in one_step(accumulate).items():
            torch.testing.assert_close(value, reference[key], rtol=1e-4, atol=1e-6)


def test_apply_cures_the_trap_of_the_stock_trainer(tmp_path):
    def step_length(accumulate, cure):
        model = zoo.build("bert", **NO_DROPOUT)
        report = apply(model) if cure else Report([], 0)
        start = weights(model)
        trainer_for(
            model, report, tmp_path, max_steps=1, gradient_accumulation_steps=accumulate, optim="sgd",
            per_device_train_batch_size=16 // accumulate, max_grad_norm=0.0, learning_rate=0.1,
        ).train()  # fmt: skip
        return sum((v.float() - start[k].float()).square().sum() for k, v in weights(model).items()).sqrt().item()

    assert step_length(4, cure=True) == pytest.approx(step_length(1, cure=True), rel=1e-4)
    if hasattr(zoo.build("bert"), "accepts_loss_kwargs"):
        raise AssertionError("transformers now declares accepts_loss_kwargs itself: chapter 26 must be rewritten")
    assert step_length(4, cure=False) == pytest.approx(4 * step_length(1, cure=False), rel=1e-3)


def test_label_smoothing_and_own_loss_function_are_refused(tmp_path):
    model, report = changed_model(KLNorm())
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        trainer_for(model, report, tmp_path, label_smoothing_factor=0.1).train()
    report.callbacks.clear()
    with pytest.raises(RuntimeError, match="reached no loss"):
        trainer_for(model, report, tmp_path, label_smoothing_factor=0.1).train()
    model, report = changed_model(KLNorm())
    trainer = trainer_for(model, report, tmp_path)
    trainer.compute_loss_func = lambda outputs, labels, **_: torch.nn.functional.cross_entropy(outputs.logits, labels)
    with pytest.raises(RuntimeError, match="reached no loss"):
        trainer.train()


def test_reentrant_checkpointing_is_refused():
    model, _ = changed_model(INTERNAL)
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(RuntimeError, match="use_reentrant"):
        model(**zoo.batch(model))


def test_schedule_that_was_never_started_raises():
    model, report = changed_model(KLNorm(schedule="linear"))
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), 1e-3)
    inputs = zoo.batch(model)
    for _ in range(2):  # accumulation: no optimiser step in between, nothing to complain about
        model(**inputs).loss.backward()
    optimiser.step()
    with pytest.raises(RuntimeError, match="never started"):
        model(**inputs)
    report.step()
    model(**inputs)


def test_schedules_count_optimiser_steps():
    model, report = changed_model(KLNorm(schedule="linear", warmup_steps=4, beta=1.0))
    layer = next(m for m in model.modules() if isinstance(m, PenaltyLayer))
    seen = []
    for _ in range(6):
        seen.append(layer.schedule.beta_at(layer.step).item())
        report.step()
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    cyclical = KLNorm(schedule="cyclical", warmup_steps=2, beta=1.0)
    model, report = changed_model(cyclical)
    layer = next(m for m in model.modules() if isinstance(m, PenaltyLayer))
    seen = []
    for _ in range(6):
        seen.append(layer.schedule.beta_at(layer.step).item())
        report.step()
    assert seen == [0.0, 0.5, 1.0, 1.0, 0.0, 0.5]


def test_copy_and_pickle_of_a_loaded_model_bring_their_own_report(tmp_path):
    changed_model(KLNorm(schedule="linear"))[0].save_pretrained(tmp_path)
    model = load(tmp_path)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.klnorm_report.step()
        layers = [m for owner in (other, model) for m in owner.modules() if isinstance(m, PenaltyLayer)]
        assert [int(layer.step) for layer in layers] == [1, 0]


@pytest.mark.parametrize("how", ["named", "tuple", "tuple by config"])
def test_penalty_joins_the_loss_of_a_head_whose_labels_have_other_names(how):
    model = BertForQuestionAnswering(zoo.build("bert", num_labels=2, **NO_DROPOUT).config)
    apply(model, KLNorm(form="C", beta=0.1))
    inputs = zoo.batch(model, labels=False)
    answer = torch.zeros(4, dtype=torch.long)
    inputs |= {"start_positions": answer, "end_positions": answer}
    if how == "tuple by config":
        model.config.return_dict = False
    outputs = model.train()(**inputs, **({"return_dict": False} if how == "tuple" else {}))
    assert isinstance(outputs, tuple) == (how != "named")
    loss, start, end = outputs if how != "named" else outputs.to_tuple()
    task = sum(torch.nn.functional.cross_entropy(x, answer) for x in (start, end)) / 2
    torch.testing.assert_close(loss, task + auxiliary_loss(model).as_subclass(torch.Tensor))
    loss.backward()


@pytest.mark.parametrize("name", ["bert", "wav2vec2"])
@pytest.mark.parametrize("method", [KLNorm(), VIB(schedule="constant")], ids=lambda m: m.name)
def test_a_tuple_holds_what_the_named_outputs_hold(method, name):
    model, _ = changed_model(method, name)
    for labels in (True, False):
        for training in (True, False):
            inputs = zoo.batch(model, labels=labels) | {"output_hidden_states": True}
            with torch.random.fork_rng():
                named = model.train(training)(**inputs)
            as_tuple = model(**inputs, return_dict=False)
            assert isinstance(as_tuple, tuple)
            flat = [t for item in named.to_tuple() for t in (item if isinstance(item, tuple) else (item,))]
            again = [t for item in as_tuple for t in (item if isinstance(item, tuple) else (item,))]
            assert len(flat) == len(again) == 1 + labels + zoo.LAYERS + 1
            if not training:
                assert all(torch.equal(x, y) for x, y in zip(flat, again, strict=True))


def test_own_loss_from_a_tuple_that_forgets_it_raises():
    model, _ = changed_model(KLNorm())
    inputs = zoo.batch(model.train())
    labels = inputs.pop("labels")
    (logits,) = model(**inputs, return_dict=False)
    with pytest.raises(RuntimeError, match="reached no loss"):
        torch.nn.functional.cross_entropy(logits, labels).backward()
    (logits,) = model(**inputs, return_dict=False)
    (torch.nn.functional.cross_entropy(logits, labels) + auxiliary_loss(model)).backward()


def test_class_of_a_changed_model_makes_plain_ones(tmp_path):
    changed = zoo.build("bert")
    apply(changed, KLNorm())
    fresh = type(changed)(changed.config)
    fresh.save_pretrained(tmp_path)
    assert "klnorm" not in json.loads((tmp_path / "config.json").read_text())
    inputs = zoo.batch(fresh)
    assert torch.isfinite(fresh(**inputs).loss)
    apply(fresh, VIB(bottleneck=8, beta=0.1, schedule="constant"))
    fresh.train()
    assert fresh(**inputs).logits.shape == (4, zoo.LABELS)
    assert auxiliary_loss(fresh) > 0


def test_methods_compose_and_conflicts_are_named():
    model = zoo.build("bert")
    report = apply(model, Dropout(p=0.05), KLNorm())
    assert "dropout" in str(report)
    assert "klnorm" in str(report)
    assert report.added_parameters == 4 * 16 * zoo.WIDTH + 2 * zoo.WIDTH
    model = zoo.build("bert")
    start = list(model.state_dict())
    with pytest.raises(ValueError, match="another method is already applied"):
        apply(model, KLNorm(), NormHead())
    assert list(model.state_dict()) == start
    apply(model, KLNorm())


def test_no_matching_site_raises():
    with pytest.raises(ValueError, match=r"[Hh]ead|[Ll]inear"):
        apply(zoo.build("bert", kind="encoder"), KLNorm())


def test_apply_wants_methods_and_auxiliary_loss_wants_apply():
    model = zoo.build("bert")
    with pytest.raises(TypeError, match="KLNorm"):
        apply(model, "klnorm")
    with pytest.raises(ValueError, match="no method was applied"):
        auxiliary_loss(model)
    apply(model, NormHead())
    with pytest.raises(RuntimeError, match="no forward"):
        auxiliary_loss(model)
    model(**zoo.batch(model))
    assert auxiliary_loss(model) == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: KLNorm(beta=-1e-3), "beta"),
        (lambda: KLNorm(beta=float("nan")), "beta"),
        (lambda: KLNorm(form="D"), "form"),
        (lambda: KLNorm(form="A", prior="learned_diagonal"), "vacuous"),
        (lambda: KLNorm(schedule="cosine"), "schedule"),
        (lambda: KLNorm(rank=0), "rank"),
        (lambda: KLNorm(rank=2.5), "whole number"),
        (lambda: KLNorm(beta="1"), "beta"),
        (lambda: VIB(samples=2.5), "whole number"),
        (lambda: from_dict({"rank": 3}), "needs a 'name'"),
        (lambda: KLNorm(free_bits=-1.0), "free_bits"),
        (lambda: KLNorm(placement="internal", statistics="batch"), "batch"),
        (lambda: VIB(bottleneck=0), "bottleneck"),
        (lambda: VIB(beta=-1.0), "beta"),
        (lambda: NormHead("instance"), "kind"),
        (lambda: MLPHead(rank=0), "rank"),
    ],
)
def test_bad_hyperparameters(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_groups_that_do_not_divide_name_the_divisors():
    with pytest.raises(ValueError, match="choose one of"):
        apply(zoo.build("bert"), KLNorm(statistics="group", groups=7))


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load(tmp_path / "nowhere")
    plain = zoo.build("bert")
    plain.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="without methods"):
        load(tmp_path / "plain")
    model, _ = changed_model(KLNorm())
    model.save_pretrained(tmp_path / "cut")
    weights_file = tmp_path / "cut" / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="corrupt or truncated"):
        load(tmp_path / "cut")
    model.save_pretrained(tmp_path / "json")
    (tmp_path / "json" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="corrupt or truncated"):
        load(tmp_path / "json")
    model.save_pretrained(tmp_path / "lacking")
    from safetensors.torch import load_file, save_file

    state = load_file(tmp_path / "lacking" / "model.safetensors")
    del state["classifier.layer.heads.mean_bias"]
    save_file(state, tmp_path / "lacking" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks classifier\.layer\.heads\.mean_bias"):
        load(tmp_path / "lacking")


class TwoPasses(PenaltyLayer):
    """Asks for a second pass and penalises the squared difference of the logits."""

    second_pass = True

    def compare(self, first, second):
        return (first - second).square().mean()


def test_any_penalty_layer_may_ask_for_a_second_pass():
    @dataclasses.dataclass(frozen=True)
    class Agreement(Method):
        name = "agreement"

        def attach(self, model):
            add_module(model, self.name, TwoPasses(Schedule(), keep_step=False))
            return ["two passes in training"]

    model = zoo.build("bert")
    apply(model, Agreement())
    inputs = zoo.batch(model)
    seen = []
    model.bert.register_forward_hook(lambda module, given, outputs: seen.append(outputs))
    outputs = model.train()(**inputs)
    assert len(seen) == 2
    assert auxiliary_loss(model) > 0
    outputs.loss.backward()
    model.eval()(**inputs)
    assert len(seen) == 3
    assert auxiliary_loss(model) == 0
