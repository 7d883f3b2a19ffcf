"""One run: the same numbers twice, done once, and its failures kept."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from klnorm_lib import study
from klnorm_lib.study import training
from klnorm_lib.study.progress import Reporter
from tests.study import small

NUMBERS = ("evaluations", "selected", "train", "validation", "test", "ood", "gap", "calibration", "hash")


def numbers(record):
    return {name: value for name, value in record.to_dict().items() if name in NUMBERS}


@pytest.fixture(scope="module")
def plain(encoder, reviews):
    return study.run(small.run(encoder, reviews), progress=False)


@pytest.mark.parametrize("method", ["plain", "vib"])  # dropout's noise, and a method's own
def test_same_run_gives_the_same_numbers(encoder, reviews, plain, method):
    run = small.run(encoder, reviews, method=method)
    first = plain if method == "plain" else study.run(run, progress=False)
    torch.manual_seed(123)  # what the process drew before does not matter
    second = study.run(run, progress=False)
    assert numbers(first) == numbers(second)
    assert first.evaluations[-1]["train_loss"] != first.evaluations[0]["train_loss"]


def test_seed_changes_the_numbers(encoder, reviews, plain):
    other = study.run(small.run(encoder, reviews, seed=1), progress=False)
    assert plain.evaluations[0]["train_loss"] != other.evaluations[0]["train_loss"]
    assert plain.hash != other.hash


def test_number_of_evaluations_does_not_change_the_training(encoder, reviews, plain):
    often = study.run(small.run(encoder, reviews, evaluations=4), progress=False)
    assert [e["step"] for e in plain.evaluations] == [2, 4]
    assert [e["step"] for e in often.evaluations] == [1, 2, 3, 4]
    assert often.evaluations[-1]["validation"] == plain.evaluations[-1]["validation"]


def test_accumulation_changes_the_loss_by_rounding_only(encoder, reviews):
    options = {"steps": 2, "evaluations": 1, "precision": "fp32"}
    model_free = encoder.parent / "no_dropout"
    if not model_free.exists():
        config = json.loads((small.encoder(model_free) / "config.json").read_text())
        config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        (model_free / "config.json").write_text(json.dumps(config))
    for method in ("plain", "klnorm"):
        losses = [
            study.run(
                small.run(model_free, reviews, method=method, gradient_accumulation=n, **options), progress=False
            ).test["nll"]
            for n in (1, 8)
        ]
        np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


@pytest.mark.parametrize("method", ["plain", "klnorm"])
def test_trainer_divides_by_the_accumulation_steps(encoder, reviews, method, monkeypatch):
    norms = {}

    class Spy(training.Trainer):
        def train(self):
            self.add_callback(Norm())
            return super().train()

    class Norm(training.TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            # Adam hides the length of a gradient, so the gradient itself is looked at
            gradients = [p.grad.norm() for p in model.parameters() if p.grad is not None]
            norms[args.gradient_accumulation_steps] = float(torch.stack(gradients).norm())

    monkeypatch.setattr(training, "Trainer", Spy)
    for parts in (1, 4):
        run = small.run(
            encoder, reviews, method=method, steps=1, evaluations=1, gradient_accumulation=parts, max_grad_norm=1e9
        )
        study.run(run, progress=False)
    assert norms[4] < 2 * norms[1]  # dropout differs between the two; an undivided gradient would be four times as long


def test_finished_run_is_not_done_again(encoder, reviews, tmp_path, capsys, monkeypatch):
    records = tmp_path / "records.jsonl"
    run = small.run(encoder, reviews)
    first = study.run(run, records)
    assert not first.already_done
    monkeypatch.setattr(training, "train", lambda *a, **k: pytest.fail("trained again"))
    second = study.run(run, records)
    assert second.already_done
    assert second.to_dict() == first.to_dict()
    assert "already done" in capsys.readouterr().err
    assert len(study.read_records(records)) == 1


def test_nan_loss_stops_and_keeps_the_record(encoder, reviews, tmp_path):
    records = tmp_path / "records.jsonl"
    run = small.run(encoder, reviews, learning_rate=1e36, max_grad_norm=1e30, steps=6)
    for attempt in (1, 2):  # a failure does not count as done
        with pytest.raises(study.NotFiniteError, match="learning_rate"):
            study.run(run, records, progress=False)
        kept = study.read_records(records)
        assert len(kept) == attempt
        assert kept[-1].status == "failed"
        assert kept[-1].error["type"] == "NotFiniteError"
        assert 1 <= kept[-1].error["step"] <= 3
        assert kept[-1].test == {}


def test_any_failure_in_training_is_recorded(encoder, reviews, tmp_path, monkeypatch):
    records = tmp_path / "records.jsonl"

    def broken(*args, **kwargs):
        raise MemoryError("no memory")

    monkeypatch.setattr(training, "train", broken)
    with pytest.raises(MemoryError):
        study.run(small.run(encoder, reviews), records, progress=False)
    assert study.read_records(records)[0].error == {"type": "MemoryError", "message": "no memory", "step": None}


@pytest.mark.parametrize(
    ("scores", "losses", "best"),
    [
        ([0.5, 0.9, 0.9, 0.2], [1.0, 0.7, 0.6, 0.1], 3),  # as good as step 2, with a lower loss
        ([0.5, 0.9, 0.9, 0.9], [1.0, 0.7, 0.7, 0.8], 2),  # among equals the earliest
        ([None, 0.9, None, 0.9], [1.0, 0.7, 0.1, 0.7], 2),  # an undefined metric is the worst
    ],
)
def test_best_weights_are_the_ones_tested(encoder, reviews, scores, losses, best):
    found = iter(zip(scores, losses, strict=True))
    model = torch.nn.Linear(1, 1)
    evaluator = training.Evaluator(
        small.run(encoder, reviews, evaluations=4),
        "accuracy",
        lambda model, step: dict(zip(("accuracy", "nll"), next(found), strict=True)),
        training.LossWatch(None),
        Reporter(False),
    )
    for step in range(1, 5):
        with torch.no_grad():
            model.weight.fill_(step)
        evaluator.on_step_end(None, type("State", (), {"global_step": step}), None, model=model)
    evaluator.restore(model)
    assert evaluator.best["step"] == best
    assert evaluator.best_scores() == {"accuracy": scores[best - 1], "nll": losses[best - 1]}
    assert model.weight.item() == best


def test_regression(encoder, tmp_path):
    scores = small.csv(tmp_path / "scores.csv", scores=True)
    record = study.run(small.run(encoder, scores), progress=False)
    assert record.task["kind"] == "regression"
    assert set(record.test) == {"pearson", "spearman", "mse"}
    assert record.calibration == {"test": {}, "ood": {}}
    assert math.isfinite(record.test["mse"])


def test_command_remakes_the_run(encoder, reviews):
    run = small.run(encoder, reviews, method="klnorm", method_args={"beta": 0.01}, seed=3)
    command = run.command(records="x.jsonl")
    assert command.startswith("klnorm run --encoder small --method klnorm --seed 3")
    assert command.endswith("--method-arg beta=0.01 --records x.jsonl")
    assert "--weight-decay" not in command


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"size": 1}, "size"),
        ({"batch_size": 6, "gradient_accumulation": 4}, "does not divide"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"max_grad_norm": float("inf")}, "max_grad_norm"),
        ({"warmup_ratio": 1.5}, "warmup_ratio"),
        ({"evaluations": 9}, "evaluations=9"),
        ({"source": "web"}, "source='web'"),
        ({"schedule": "stairs"}, "schedule"),
        ({"precision": "fp8"}, "precision"),
        ({"device": "abacus"}, "device"),
        ({"task": "mrpc"}, "not both"),
        ({"label": None}, "label"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_fields_are_named(encoder, reviews, fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(small.run(encoder, reviews), **fields)


def test_run_needs_a_task_or_a_file():
    with pytest.raises(ValueError, match="klnorm tasks"):
        study.Run(None, "klnorm-nano")
    with pytest.raises(ValueError, match="data=FILE"):
        study.Run("mrpc", "klnorm-nano", text="words")


def test_unknown_names_fail_before_training(encoder, reviews, tmp_path):
    records = tmp_path / "records.jsonl"
    for fields, message in (
        ({"method": "klnrom"}, "klnorm"),
        ({"method": "klnorm", "method_args": {"betta": 1}}, "betta"),
    ):
        with pytest.raises(ValueError, match=message):
            study.run(small.run(encoder, reviews, **fields), records)
    assert not records.exists()


def test_method_args_are_frozen(encoder, reviews):
    run = small.run(encoder, reviews, method_args={"rates": {"embeddings": 0.1}})
    assert hash(run) == hash(small.run(encoder, reviews, method_args={"rates": {"embeddings": 0.1}}))
    with pytest.raises(TypeError):
        run.method_args["rates"]["embeddings"] = 0.2


def test_a_bad_file_is_refused_before_training(encoder, reviews, tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        study.run(small.run(encoder, tmp_path / "none.csv"), records=tmp_path / "r.jsonl", progress=False)
    with pytest.raises(ValueError, match="larger than the data"):
        study.run(small.run(encoder, reviews, size=5_000), records=tmp_path / "r.jsonl", progress=False)
    assert not (tmp_path / "r.jsonl").exists()


def test_a_run_in_bf16_leaves_the_next_one_alone(encoder, reviews, plain):
    narrow = study.run(small.run(encoder, reviews, precision="bf16"), progress=False)
    after = study.run(small.run(encoder, reviews), progress=False)
    assert narrow.evaluations[-1]["train_loss"] != plain.evaluations[-1]["train_loss"]
    assert numbers(after) == numbers(plain)
