"""The penalties of peft's own regularised tuners reach the loss once, whoever adds them, and stand in the log."""

import copy
import pickle

import pytest
import torch
from peft import AdaLoraConfig, KasaConfig, LoraConfig, MontecloraConfig, get_peft_model
from peft.helpers import MontecloraTrainerMixin
from transformers import Trainer

from klnorm_lib import Dropout, KLNorm, apply, auxiliary_loss, load
from tests import zoo
from tests.methods.loops import NO_DROPOUT, Rows, small, trainer_for

KASA, MONTE = KasaConfig(beta=0.5, gamma=0.25), MontecloraConfig(kl_loss_weight=1e-2, use_entropy=True)
TUNERS = {
    "kasa": lambda: LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"], kasa_config=KASA),
    "monteclora": lambda: LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], monteclora_config=MONTE),
    "adalora": lambda: AdaLoraConfig(task_type="SEQ_CLS", target_modules=["query"], total_step=99, orth_reg_weight=0.5),
}


def adapted(kind, base=None):
    torch.manual_seed(0)
    return get_peft_model(base or small("bert", **NO_DROPOUT), TUNERS[kind]())


def by_hand(kind, model):
    tuner = model.base_model
    if kind == "adalora":
        total, count = 0.0, 0
        for name, p in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                gram = p @ p.T if "lora_A" in name else p.T @ p
                total, count = total + torch.linalg.norm(gram - torch.eye(len(gram))), count + 1
        return 0.5 * total / count
    return getattr(type(tuner), f"_get_{kind}_loss")(tuner)


def losses(model):
    inputs = zoo.batch(model)
    torch.manual_seed(3)
    outputs = model.train()(**inputs)
    return outputs.loss, torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"])


@pytest.mark.parametrize("kind", TUNERS)
@pytest.mark.parametrize("methods", [(), (Dropout(p=0.0),), (KLNorm(beta=0.1),)], ids=["none", "dropout", "klnorm"])
def test_it_is_added_exactly_once(kind, methods):
    model = adapted(kind)
    report = apply(model, *methods)
    assert any(f"penalty of {kind}" in line for line in report.changed)
    loss, task = losses(model)
    own = 0.0 if kind == "adalora" else by_hand(kind, model)
    penalty = auxiliary_loss(model).as_subclass(torch.Tensor)
    assert by_hand(kind, model) > 0.01
    torch.testing.assert_close(loss, task + penalty + (by_hand(kind, model) if kind == "adalora" else 0))
    if not any(isinstance(m, KLNorm) for m in methods):
        torch.testing.assert_close(penalty, torch.as_tensor(own))
    loss.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "lora_A" in n)


@pytest.mark.parametrize("kind", ["kasa", "monteclora"])
def test_adding_it_again_raises(kind):
    model = adapted(kind)
    apply(model)
    loss, _ = losses(model)
    with pytest.raises(RuntimeError, match=r"already inside outputs\.loss"):
        loss + getattr(model, f"_get_{kind}_loss")()
    with pytest.raises(RuntimeError, match=r"already inside outputs\.loss"):
        loss + (0.0 + getattr(model, f"_get_{kind}_loss")())


def test_the_trainer_of_peft_that_adds_it_raises(tmp_path):
    model = adapted("monteclora")
    report = apply(model)
    arguments = trainer_for(model, report, tmp_path).args

    class Adding(MontecloraTrainerMixin, Trainer):
        pass

    with pytest.raises(RuntimeError, match=r"already inside outputs\.loss"):
        Adding(model, arguments, train_dataset=Rows(model)).train()


@pytest.mark.parametrize("kind", TUNERS)
def test_it_is_logged(kind, tmp_path):
    model = adapted(kind)
    report = apply(model, KLNorm(beta=0.1))
    trainer = trainer_for(model, report, tmp_path, max_steps=2, logging_strategy="steps", logging_steps=1)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 2
    for row in rows:
        assert row[f"penalty_{kind}"] > 0.001
        inside = row["penalty"] + (row[f"penalty_{kind}"] if kind == "adalora" else 0)
        assert row["loss"] == pytest.approx(row["penalty_task_loss"] + inside, abs=1e-3)
    assert row[f"penalty_{kind}_beta"] == (0.5 if kind == "adalora" else 1.0)


def test_adalora_without_a_loss_of_the_model_is_not_lost():
    model = adapted("adalora")
    apply(model, Dropout(p=0.0))
    inputs = zoo.batch(model)
    labels = inputs.pop("labels")
    model.train()
    for give in ({}, {"return_dict": False}):
        outputs = model(**inputs, **give)
        task = torch.nn.functional.cross_entropy(outputs[0], labels)
        with pytest.raises(RuntimeError, match="reached no loss"):
            task.backward()
    outputs = model(**inputs, labels=labels, return_dict=False)
    task = torch.nn.functional.cross_entropy(outputs[1], labels)
    torch.testing.assert_close(outputs[0], task + by_hand("adalora", model))


@pytest.mark.parametrize("kind", TUNERS)
def test_adapters_that_transformers_adds_itself(kind):
    model = small("bert", **NO_DROPOUT)
    torch.manual_seed(0)
    model.add_adapter(TUNERS[kind]())
    apply(model)
    loss, task = losses(model)
    torch.testing.assert_close(loss, task + auxiliary_loss(model).as_subclass(torch.Tensor))
    assert auxiliary_loss(model) > 0.001


@pytest.mark.parametrize("kind", ["kasa", "monteclora"])
def test_an_adapter_after_apply_warns(kind):
    base = small("bert", **NO_DROPOUT)
    apply(base, KLNorm(beta=0.1))
    model = adapted(kind, base)
    with pytest.warns(UserWarning, match=f"leaves the penalty of {kind} to you"):
        model.train()(**zoo.batch(model))


@pytest.mark.parametrize("kind", TUNERS)
def test_copies_saved_and_merged_models(kind, tmp_path):
    base = small("bert", **NO_DROPOUT)
    base.save_pretrained(tmp_path / "base")
    model = adapted(kind, type(base).from_pretrained(tmp_path / "base"))
    apply(model, KLNorm(beta=0.1))
    model.save_pretrained(tmp_path / "saved")
    opened = load(tmp_path / "saved")
    assert any(f"penalty of {kind}" in line for line in opened.klnorm_report.changed)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), opened):
        loss, task = losses(other)  # what MonteCLoRA draws differs from copy to copy
        own = by_hand(kind, other) if kind == "adalora" else 0.0
        torch.testing.assert_close(loss, task + auxiliary_loss(other).as_subclass(torch.Tensor) + own)
        assert abs(loss - task) > 0.001
    merged = model.merge_and_unload().train()
    assert merged(**zoo.batch(merged)).loss.isfinite()
