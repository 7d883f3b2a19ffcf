"""The stock Trainer's own log says what the penalties did."""

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from klnorm_lib import L2SP, VIB, KLNorm, MLPHead, RDrop, apply, auxiliary_loss
from klnorm_lib.methods.callback import PenaltyLog
from klnorm_lib.methods.monitoring import means_of
from tests import zoo


class Tracker(TrainerCallback):
    """Stands where the Trainer puts those that report to others: before the callbacks it is given."""

    def __init__(self):
        self.rows = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.rows.append(dict(logs))


def a_run(tmp_path, *methods, monitored=True, report_given=True, dropout=0.0, **settings):
    torch.manual_seed(0)
    model = zoo.build("bert", hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    report = apply(model, *methods)
    batch = zoo.batch(model)
    rows = [{k: v[i % len(v)] for k, v in batch.items()} for i in range(8)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no",
        **{"max_steps": 4, "logging_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-2} | settings,
    )  # fmt: skip
    tracker = Tracker()
    callbacks = [tracker, *report.callbacks] if report_given else [tracker]
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows[:2], callbacks=callbacks)
    if not monitored:
        trainer.remove_callback(PenaltyLog)
    trainer.train()
    return trainer, [row for row in trainer.state.log_history if "loss" in row], tracker


@pytest.mark.parametrize("accumulation", [1, 2])
def test_task_loss_and_penalty_sum_to_the_logged_loss_and_reach_every_tracker(tmp_path, accumulation):
    method = KLNorm(beta=0.3, schedule="linear", warmup_steps=4)
    _, rows, tracker = a_run(tmp_path, method, gradient_accumulation_steps=accumulation)
    assert [row["penalty_step"] for row in rows] == [2, 4]
    # Steps 0 to 3 of a rise over four: the weights in force, averaged over each interval.
    assert [row["penalty_klnorm_beta"] for row in rows] == pytest.approx([0.3 * 0.125, 0.3 * 0.625])
    for row in rows:
        assert row["penalty_task_loss"] + row["penalty"] == pytest.approx(row["loss"], rel=1e-5)
        assert row["penalty_klnorm"] == pytest.approx(row["penalty"])
    keys = {key for key in rows[0] if key.startswith("penalty")}
    seen = [{k: row[k] for k in keys} for row in tracker.rows if "loss" in row]
    assert seen == [{k: row[k] for k in keys} for row in rows]


def test_a_trainer_that_was_given_no_callbacks_logs_too(tmp_path):
    _, rows, tracker = a_run(tmp_path, KLNorm(form="C", beta=0.3), report_given=False)
    for row, seen in zip(rows, tracker.rows, strict=False):
        assert row["penalty_klnorm"] > 0
        assert seen["penalty_klnorm"] == row["penalty_klnorm"]
        assert row["penalty_task_loss"] + row["penalty"] == pytest.approx(row["loss"], rel=1e-5)


def test_a_trainer_of_a_model_that_is_not_of_transformers_is_left_alone(tmp_path):
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 2)

        def forward(self, x, labels):
            return {"loss": torch.nn.functional.cross_entropy(self.linear(x), labels)}

    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, max_steps=1, logging_steps=1)
    trainer = Trainer(Plain(), arguments, train_dataset=[{"x": torch.ones(4), "labels": 0}] * 8)
    trainer.train()
    assert "loss" in trainer.state.log_history[0]


def test_kl_per_feature_is_the_penalty_over_beta_and_width(tmp_path):
    _, rows, _ = a_run(tmp_path, KLNorm(beta=0.3, form="C"))
    for row in rows:
        assert row["penalty_klnorm_kl_per_feature"] * zoo.WIDTH * 0.3 == pytest.approx(row["penalty"], rel=1e-5)
        assert row["penalty_klnorm_active_units"] == zoo.WIDTH  # form C starts at 1.8 nats a feature


def test_form_b_starts_without_an_active_unit(tmp_path):
    _, rows, _ = a_run(tmp_path, KLNorm(beta=0.3), max_steps=1, logging_steps=1)
    assert rows[0]["penalty_klnorm_active_units"] == 0
    assert rows[0]["penalty"] == 0


@pytest.mark.parametrize(
    "methods",
    [(VIB(bottleneck=4, beta=0.1),), (L2SP(alpha=0.1),), (RDrop(alpha=0.5),), (KLNorm(beta=0.2), L2SP(alpha=0.1))],
    ids=lambda m: "+".join(x.name for x in m),
)
def test_every_method_with_a_penalty_is_logged_by_its_name(tmp_path, methods):
    _, rows, _ = a_run(tmp_path, *methods, dropout=0.2)
    row = rows[-1]
    assert sum(row[f"penalty_{m.name}"] for m in methods) == pytest.approx(row["penalty"], rel=1e-5)
    assert row["penalty"] > 0
    assert row["penalty_task_loss"] + row["penalty"] == pytest.approx(row["loss"], rel=1e-5)


def test_methods_without_a_penalty_log_nothing_and_evaluation_is_left_alone(tmp_path):
    trainer, rows, _ = a_run(tmp_path / "mlp", MLPHead())
    assert not any(key.startswith("penalty") for row in rows for key in row)
    trainer, _, _ = a_run(tmp_path / "klnorm", KLNorm(), eval_strategy="steps", eval_steps=2)
    for row in trainer.state.log_history:
        assert "loss" in row or not any(key.startswith("penalty") for key in row)


def test_what_is_logged_changes_no_number(tmp_path):
    plain, _, _ = a_run(tmp_path / "a", KLNorm(form="C"), monitored=False, dropout=0.1)
    logged, _, _ = a_run(tmp_path / "b", KLNorm(form="C"), dropout=0.1)
    for a, b in zip(plain.model.state_dict().items(), logged.model.state_dict().items(), strict=True):
        assert a[0].endswith("step") or torch.equal(a[1], b[1]), a[0]
    assert means_of(logged.model.train()) is None  # nothing is kept after training
    logged.model(**zoo.batch(logged.model))
    assert auxiliary_loss(logged.model).isfinite()
