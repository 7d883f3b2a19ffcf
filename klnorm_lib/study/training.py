"""One training: the stock Trainer, a watch over its loss, and the best weights kept in memory."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from klnorm_lib.study.errors import ADVICE, NotFiniteError
from klnorm_lib.study.evaluation import RULE
from klnorm_lib.study.progress import Reporter
from klnorm_lib.study.spec import Run


class LossWatch:
    """A forward hook that stops training at the first loss that is not finite, before the optimiser sees it."""

    def __init__(self, penalty: Callable[[torch.nn.Module], float] | None) -> None:
        self.step = 1
        self._penalty = penalty
        self._recent: list[float] = []
        self._losses: list[float] = []
        self._penalties: list[float] = []

    def __call__(self, model: torch.nn.Module, args: tuple, output: Any) -> None:
        """Called by torch after each forward; looks at training forwards only."""
        if not model.training or output.get("loss") is None:
            return
        loss = float(output["loss"].detach())
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss became {loss} at step {self.step}. {ADVICE}", self.step)
        self._recent.append(loss)
        self._losses.append(loss)
        if self._penalty is not None:
            self._penalties.append(self._penalty(model))

    def last_step(self) -> float | None:
        """Mean loss of the optimiser step just done."""
        recent, self._recent = self._recent, []
        return sum(recent) / len(recent) if recent else None

    def since_last_look(self) -> dict[str, float | None]:
        """Mean training loss (penalty included) and mean penalty since the last call."""
        losses, self._losses = self._losses, []
        penalties, self._penalties = self._penalties, []
        return {
            "train_loss": sum(losses) / len(losses) if losses else None,
            "penalty": sum(penalties) / len(penalties) if penalties else None,
        }


class Evaluator(TrainerCallback):
    """Evaluates at evenly spaced steps and keeps a copy of the best weights; no random numbers, no side effects."""

    def __init__(
        self, run: Run, primary: str, evaluate: Callable[[Any, int], dict], watch: LossWatch, reporter: Reporter
    ) -> None:
        self.steps = {round(run.steps * i / run.evaluations) for i in range(1, run.evaluations + 1)}
        self.primary = primary
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self._key: tuple[float, float] | None = None
        self._weights: dict[str, torch.Tensor] = {}
        self._total = run.steps
        self._evaluate, self._watch, self._reporter = evaluate, watch, reporter

    def on_step_begin(self, args, state, control, **kwargs):
        """Give the watch the number of the step."""
        self._watch.step = state.global_step + 1

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Advance the bar; at the chosen steps look at the validation rows."""
        step = state.global_step
        self._reporter.step(step, self._watch.last_step())
        if step in self.steps:
            scores = self._evaluate(model, step)
            self.history.append({"step": step, **self._watch.since_last_look(), "validation": scores})
            self._reporter.evaluation(step, self._total, scores, self._offer(model, step, scores))

    def _offer(self, model, step: int, scores: dict[str, float | None]) -> bool:
        value = scores[self.primary]
        loss = scores.get("nll", scores.get("mse"))
        key = (-math.inf if value is None else value, -math.inf if loss is None else -loss)
        if self._key is not None and key <= self._key:
            return False
        self._key, self.best = key, {"step": step, "metric": self.primary, "rule": RULE}
        self._weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}
        return True

    def best_scores(self) -> dict[str, float | None]:
        """The validation scores of the best evaluation."""
        return next(e["validation"] for e in self.history if e["step"] == self.best["step"])

    def restore(self, model) -> None:
        """Put the best weights back into the model."""
        model.load_state_dict(self._weights)
        self._weights = {}


def train(
    run: Run, model, processor, rows, evaluator: Evaluator, callbacks: list, device: str, collator=None, each: int = 1
) -> None:
    """``run.steps`` optimiser steps on ``rows`` with the stock Trainer.

    ``collator`` makes a batch (default: padding); ``each``: rows of the batch that one item of ``rows`` becomes.

    Incomplete batches at the end of an epoch are dropped, so that every step sees as many rows; fewer rows than a
    batch make one batch.
    """
    from transformers import DataCollatorWithPadding

    micro = run.batch_size // run.gradient_accumulation // each
    with tempfile.TemporaryDirectory(prefix="klnorm-") as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=run.steps,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=run.gradient_accumulation,
            learning_rate=run.learning_rate,
            weight_decay=run.weight_decay,
            warmup_steps=round(run.warmup_ratio * run.steps),
            lr_scheduler_type=run.schedule,
            max_grad_norm=run.max_grad_norm,
            optim="adamw_torch_fused",  # the same steps in one kernel: a third of the time on a CPU
            bf16=run.precision == "bf16",
            fp16=run.precision == "fp16",
            use_cpu=device == "cpu",
            seed=run.seed,
            data_seed=run.seed,
            dataloader_drop_last=len(rows) >= micro,
            dataloader_pin_memory=device == "cuda",
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # several cards would change the batch, and so the numbers
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=collator or DataCollatorWithPadding(processor),
            callbacks=[evaluator, *callbacks],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
