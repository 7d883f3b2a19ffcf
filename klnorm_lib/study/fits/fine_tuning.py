"""Fine-tuning: the encoder and its head, with a method of ``klnorm_lib.methods`` or none, by the stock ``Trainer``."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from klnorm_lib.study import evaluation, machine, padding, preparing
from klnorm_lib.study.fit_protocol import FINE_TUNING, Fit
from klnorm_lib.study.fits.loading import model_and_rows
from klnorm_lib.study.inputs import Inputs
from klnorm_lib.study.plain import to_plain
from klnorm_lib.study.progress import Reporter
from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import Run


@dataclass(frozen=True)
class FineTuning(Fit):
    """Gradient steps on all parameters; ``method`` changes the model first (``None``: plain)."""

    method: Any = None
    name = FINE_TUNING
    description = "The encoder and its own head, trained together."
    used_fields = frozenset(f.name for f in fields(Run))

    @classmethod
    def build(cls, run: Run) -> FineTuning:
        """Fine-tuning with the method of a run; raises ``ValueError`` for an unknown one, or a wrong hyperparameter."""
        from klnorm_lib import methods

        return cls(methods.build(run.method, **_arguments(run)))

    @property
    def version(self) -> int:
        """The version of the method; 1 without one."""
        return 1 if self.method is None else self.method.version

    def hyperparameters(self) -> dict[str, Any]:
        """Those of the method, as plain JSON; later ones at their old value are left out."""
        from klnorm_lib import methods

        return to_plain(methods.recorded_fields(self.method))

    def fit(self, inputs: Inputs, record: Record, reporter: Reporter) -> dict[str, np.ndarray]:
        """Train, put the weights back that did best on the validation rows, and predict the other splits: logits."""
        from transformers import DataCollatorWithPadding

        from klnorm_lib.study import training

        run, task = inputs.run, inputs.task
        model, processor, rows = model_and_rows(inputs, record, reporter)
        collator = DataCollatorWithPadding(processor)
        batches = preparing.Batches(rows["train"], collator, run.batch_size, inputs.device)
        callbacks = self._apply(model, record, batches)

        def validate(model, step: int) -> dict[str, float | None]:
            logits = evaluation.predict(model, rows["validation"], collator, step)
            return evaluation.score(task.metrics, logits, rows["validation"]["label"], inputs.regression)

        watch = training.LossWatch(None if self.method is None else _penalty)
        evaluator = training.Evaluator(run, task.metrics[0], validate, watch, reporter)
        handle = model.register_forward_hook(watch)
        reporter.start(run.steps)
        begun = time.perf_counter()
        try:
            with machine.deterministic(inputs.device):
                training.train(run, model, processor, rows["train"], evaluator, callbacks, inputs.device)
        finally:
            handle.remove()
            record.evaluations = evaluator.history
        record.time["train_seconds"] = round(time.perf_counter() - begun, 3)
        reporter.stop()

        evaluator.restore(model)
        record.selected, record.validation = evaluator.best, evaluator.best_scores()
        padding.note(record, model)
        step = record.selected["step"]
        return {
            name: evaluation.predict(model, split, collator, step)
            for name, split in rows.items()
            if name != "validation"
        }

    def _apply(self, model, record: Record, batches: preparing.Batches) -> list:
        """Change the model; returns the callbacks that the method needs."""
        from klnorm_lib import methods

        before = sum(p.numel() for p in model.parameters())
        # `plain` needs this as much as any method: else the stock Trainer does not divide by the accumulation steps
        model.accepts_loss_kwargs = False
        several = self.method.methods if isinstance(self.method, methods.Together) else (self.method,)
        report = None
        if self.method is not None:
            report = methods.apply(model, *preparing.prepare(several, model, batches))
        total = sum(p.numel() for p in model.parameters())
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        added = total - before if report is None else report.added_parameters
        record.parameters = {"total": total, "trainable": trainable, "added": added}
        record.method["changed"] = [] if report is None else list(report.changed)
        record.method["added_parameters"] = added
        return [] if report is None else list(report.callbacks)


def _arguments(run: Run) -> dict[str, Any]:
    """The hyperparameters of a run; a method with random numbers of its own draws by the run's seed by default."""
    from klnorm_lib import methods

    values = to_plain(run.method_args)
    together = "+" in run.method
    for name in run.method.split("+"):
        if name in methods.REGISTRY and any(f.name == "seed" for f in fields(methods.REGISTRY[name])):
            values.setdefault(f"{name}.seed" if together else "seed", run.seed)
    return values


def _penalty(model) -> float:
    from klnorm_lib import methods

    return float(methods.auxiliary_loss(model).detach())
