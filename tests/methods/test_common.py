"""What the contract promises for every method, over the whole table of cases."""

import copy
import dataclasses
import json
import pickle

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from klnorm_lib import Report, apply, auxiliary_loss, load
from klnorm_lib.methods import Method, from_dict, to_dict
from klnorm_lib.methods.penalty import PenaltyLayer
from klnorm_lib.methods.schedule import Schedule
from tests import zoo
from tests.methods.cases import CASES, FIRST, HEARD, MAIN, READ, READS
from tests.methods.loops import moved, seeded, small, trainer_for, weights

PER_CASE = pytest.mark.parametrize("case", CASES, ids=str)
TEXTS = pytest.mark.parametrize("case", READ, ids=str)
MAIN_CASES = pytest.mark.parametrize("case", [*MAIN, *HEARD], ids=str)


def changed(case, **config):
    """A model with the case's method applied, and the report."""
    model = small(case.model, **config)
    return model, apply(model, case.method(model))


def penalty_layers(model):
    return [m for m in model.modules() if isinstance(m, PenaltyLayer)]


def added(model):
    """Parameters of the layers that the method added, by name."""
    inside = {id(p) for m in model.modules() if getattr(m, "added_by_klnorm", False) for p in m.parameters()}
    return {n: p for n, p in model.named_parameters() if id(p) in inside}


def begin(report):
    """A schedule that has left its zero, as after two steps of an optimiser."""
    report.step()
    report.step()


# Applying


@PER_CASE
def test_apply_changes_in_place_and_tells(case):
    model = small(case.model)
    name, before = type(model).__name__, sum(p.numel() for p in model.parameters())
    report = apply(model, case.method(model))
    assert isinstance(report, Report)
    assert report.changed
    assert all(line.startswith(f"{case.name}: ") and line in str(report) for line in report.changed)
    assert report.added_parameters == sum(p.numel() for p in model.parameters()) - before
    assert type(model).__name__ == name
    with pytest.raises(ValueError, match="already applied"):
        apply(model, case.method(small(case.model)))


class Failing(Method):
    name = "failing"

    def attach(self, model):
        raise ValueError("not today")


def snapshot(model):
    """Everything that belongs to a model: modules, classes, attributes, hooks, parameters and their values."""
    kept, seen = [], {}
    for path, module in model.named_modules():
        attributes = {}
        for key, value in vars(module).items():
            kept.append(value)  # so that no id is given out twice
            simple = isinstance(value, (int, float, str, tuple, type(None)))
            attributes[key] = (
                value if simple else [(k, id(v)) for k, v in value.items()] if type(value) is dict else id(value)
            )
        seen[path] = (id(module), type(module), attributes)
    for name, p in model.named_parameters():
        hooks = len(p._backward_hooks or ())
        seen[f"parameter {name}"] = (id(p), p.requires_grad, hooks, p.detach().clone().numpy().tobytes())
    return seen, kept


@PER_CASE
def test_a_failed_apply_leaves_the_model_as_it_was(case):
    model = small(case.model)
    method = case.method(model)
    before, kept = snapshot(model)
    with pytest.raises(ValueError, match="not today"):
        apply(model, method, Failing())
    after, _ = snapshot(model)
    assert after.keys() == before.keys()
    assert [name for name in before if after[name] != before[name]] == []
    assert kept
    assert apply(model, method).changed


@PER_CASE
def test_round_trip_through_json_and_copies(case):
    model, _ = changed(case)
    (method,) = model._klnorm_methods
    saved = json.loads(json.dumps(to_dict(method)))
    assert saved.pop("name") == case.name
    assert set(saved) == {f.name for f in dataclasses.fields(method)}
    copies = [from_dict({"name": case.name, **saved}), copy.deepcopy(method), pickle.loads(pickle.dumps(method))]
    for other in copies:
        assert other == method
        assert hash(other) == hash(method)


# Training


def without_penalty(model, inputs):
    """The loss with the weight of every penalty at zero."""
    schedules = [(layer, layer.schedule) for layer in penalty_layers(model)]
    for layer, _ in schedules:
        layer.schedule = Schedule("constant", 0.0)
    loss = seeded(model, inputs).loss
    for layer, schedule in schedules:
        layer.schedule = schedule
    return loss


def slopes(value, model):
    """The gradient of ``value`` in every parameter, zero where it does not depend on one."""
    if not value.requires_grad:
        return [torch.zeros_like(p) for p in model.parameters()]
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, model.parameters(), strict=True)]


@TEXTS
def test_the_penalty_joins_the_loss_once_on_every_part_of_a_batch(case):
    model, report = changed(case)
    begin(report)
    moved(model).double().train()
    inputs = zoo.batch(model, rows=8)
    for parts in (1, 2, 4):
        for i in range(parts):
            rows = {k: v[i * 8 // parts : (i + 1) * 8 // parts] for k, v in inputs.items()}
            loss = seeded(model, rows).loss
            penalty = auxiliary_loss(model).as_subclass(torch.Tensor)
            assert (penalty > 0) == case.row.penalised
            torch.testing.assert_close(loss, without_penalty(model, rows) + penalty)
    together, own = slopes(loss, model), slopes(penalty, model)
    for g, task, mine in zip(together, slopes(without_penalty(model, rows), model), own, strict=True):
        torch.testing.assert_close(g, task + mine, rtol=1e-4, atol=1e-6)


@TEXTS
def test_in_evaluation_nothing_joins_the_loss(case):
    model, report = changed(case)
    begin(report)
    moved(model).eval()
    inputs = zoo.batch(model)
    outputs = model(**inputs)
    torch.testing.assert_close(outputs.loss, torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"]))


@PER_CASE
def test_every_new_parameter_gets_a_gradient(case):
    model, report = changed(case)
    begin(report)
    moved(model).train()
    outputs = model(**zoo.batch(model))
    assert outputs.logits.shape == (4, zoo.LABELS)
    outputs.loss.backward()
    assert [n for n, p in added(model).items() if p.grad is None or not p.grad.any()] == []


@TEXTS
def test_schedules_step(case):
    model, report = changed(case)
    moved(model).train()
    inputs, seen = zoo.batch(model), []
    assert bool(report.callbacks) == bool(penalty_layers(model))
    for step in range(6):
        assert [int(layer.step) for layer in penalty_layers(model)] == [step] * len(penalty_layers(model))
        seeded(model, inputs)
        seen.append(auxiliary_loss(model).item())
        report.step()
    schedules = {layer.schedule.kind: layer.schedule for layer in penalty_layers(model)}
    factors = [1.0] * 6
    for schedule in schedules.values():
        factors = [schedule.beta_at(torch.tensor(s)).item() / schedule.beta if schedule.beta else 1.0 for s in range(6)]
    largest = max(seen)
    assert seen == pytest.approx([largest * f / max(factors) for f in factors], rel=1e-4)
    assert (largest > 0) == case.row.penalised


def gradients(case, checkpointing):
    model, report = changed(case)
    begin(report)
    moved(model).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    seeded(model, zoo.batch(model)).loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@MAIN_CASES
def test_gradient_checkpointing_gives_the_same_gradients(case):
    plain, checkpointed = gradients(case, False), gradients(case, True)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


@TEXTS
def test_bf16_autocast(case):
    model, report = changed(case)
    begin(report)
    moved(model).train()
    inputs = zoo.batch(model)
    exact = seeded(model, inputs).loss.item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = seeded(model, inputs).loss
    loss.backward()
    assert loss.item() == pytest.approx(exact, rel=0.05)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert [n for n, p in added(model).items() if p.grad is None or not p.grad.any()] == []


# Saving


@PER_CASE
def test_a_saved_model_loads_with_the_same_logits(case, tmp_path):
    model, report = changed(case)
    begin(report)
    moved(model).train()(**zoo.batch(model)).loss.backward()
    model.eval()
    inputs = zoo.batch(model)
    expected, penalty = model(**inputs).logits, auxiliary_loss(model)
    model.save_pretrained(tmp_path)
    (saved,) = json.loads((tmp_path / "config.json").read_text())["klnorm"]["methods"]
    assert from_dict(saved) == model._klnorm_methods[0]
    assert not hasattr(model.config, "klnorm")
    loaded = load(tmp_path)
    assert torch.equal(loaded(**inputs).logits, expected)
    if case.row.trains_on:
        assert torch.equal(auxiliary_loss(loaded), penalty)
        assert torch.equal(seeded(loaded.train(), inputs).loss, seeded(model.train(), inputs).loss)
    else:
        with pytest.raises(RuntimeError, match="load_state_dict"):
            loaded.train()(**inputs)
    assert type(loaded).__name__ == type(model).__name__


@TEXTS
def test_copies_after_a_training_step_are_the_same_and_stand_alone(case):
    model, report = changed(case)
    begin(report)
    inputs = zoo.batch(model)
    moved(model).train()(**inputs).loss.backward()
    model.zero_grad()
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    expected = seeded(model, inputs).loss
    expected.backward()
    wanted = {n: p.grad for n, p in model.named_parameters()}
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    for other in copies:
        loss = seeded(other, inputs).loss
        assert torch.equal(loss, expected)
        loss.backward()
        for name, p in other.named_parameters():
            assert (p.grad is None and wanted[name] is None) or torch.equal(p.grad, wanted[name]), name


def steps(model, report, optimiser, count):
    for _ in range(count):
        optimiser.zero_grad()
        model(**zoo.batch(model)).loss.backward()
        optimiser.step()
        report.step()


@TEXTS
def test_resuming_a_loop_is_exact(case):
    """Weights, optimiser and the state of the generator are all that a run needs to go on as if it had not stopped."""

    def fresh():
        model, report = changed(case)
        return model.train(), report, torch.optim.AdamW(model.parameters(), 1e-2)

    model, report, optimiser = fresh()
    torch.manual_seed(0)
    steps(model, report, optimiser, 2)
    checkpoint = copy.deepcopy((model.state_dict(), optimiser.state_dict())), torch.get_rng_state()
    steps(model, report, optimiser, 2)
    again, report, optimiser = fresh()
    (state, moments), draws = checkpoint
    again.load_state_dict(state)
    optimiser.load_state_dict(moments)
    torch.set_rng_state(draws)
    steps(again, report, optimiser, 2)
    assert [key for key, value in model.state_dict().items() if not torch.equal(again.state_dict()[key], value)] == []


def trained(case, folder, checkpoint=None):
    model, report = changed(case)
    for p in model.base_model.embeddings.parameters():
        p.requires_grad_(False)
    before = weights(model)
    arguments = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer_for(model, report, folder, **arguments).train(resume_from_checkpoint=checkpoint)
    return model, before


# What hands the Trainer no callbacks is trained by it as by the loop above.
@pytest.mark.parametrize("case", [case for case in FIRST if case.row.penalised], ids=str)
def test_the_stock_trainer_trains_what_is_new_and_resumes_exactly(case, tmp_path):
    model, before = trained(case, tmp_path)
    after = weights(model)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert [n for n in frozen if not torch.equal(after[n], before[n])] == []
    assert [n for n in added(model) if n not in frozen and torch.equal(after[n], before[n])] == []
    assert {int(layer.step) for layer in penalty_layers(model)} == {2}
    again, _ = trained(case, tmp_path, str(tmp_path / "checkpoint-1"))
    assert [key for key, value in weights(again).items() if not torch.equal(after[key], value)] == []


# With peft


def adapted(case, folder):
    targets = ["query", "value"] if case.model == READS else ["q_proj", "v_proj"]
    task = "SEQ_CLS" if case.model == READS else None
    small(case.model).save_pretrained(folder / "base")
    base = type(small(case.model)).from_pretrained(folder / "base")
    return get_peft_model(base, LoraConfig(task_type=task, r=2, target_modules=targets, lora_dropout=0.0))


@MAIN_CASES
def test_under_lora_it_trains_with_the_adapter_is_saved_and_loaded_with_it_or_says_why_not(case, tmp_path):
    model = adapted(case, tmp_path)
    before, kept = snapshot(model)
    if not case.row.lora:
        with pytest.raises(ValueError, match="LoRA"):
            apply(model, case.method(model))
        assert kept
        assert snapshot(model)[0] == before
        return
    report = apply(model, case.method(model))
    begin(report)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        g = torch.Generator().manual_seed(1)
        for name, p in model.named_parameters():
            if name in trainable:
                p.add_(0.1 * torch.randn(p.shape, generator=g))
    inputs = zoo.batch(model)
    seeded(model.train(), inputs).loss.backward()
    new = [p for n, p in added(model).items() if n in trainable]
    assert bool(new) == bool(report.added_parameters or [n for n in added(model)])
    assert all(p.grad is not None and p.grad.any() for p in new)
    expected = model.eval()(**inputs).logits
    model.save_pretrained(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert isinstance(loaded, PeftModel)
    assert torch.equal(loaded(**inputs).logits, expected)
    assert torch.equal(seeded(loaded.train(), inputs).loss, seeded(model.train(), inputs).loss)
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == trainable
