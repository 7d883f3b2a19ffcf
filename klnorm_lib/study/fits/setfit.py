r"""A SetFit-style arm: fine-tune the encoder by contrast, then fit a linear model on its frozen features.

After Tunstall et al. 2022, "Efficient Few-Shot Learning Without Prompts" (arXiv 2209.11055). This is the idea in our
own pipeline, not the setfit package: the same rows, budget and choice on validation as every other arm. A row's
embedding e is the mean last hidden state over its real tokens (a pair of texts is one input of two segments, as for
the other arms) or frames. A batch is made of rows, each with a partner of the same class drawn at random; all its
pairs i < j count:

.. math:: L = \tfrac12 \operatorname*{mean}_{y_i = y_j} (1 - \cos(e_i, e_j))^2
          + \tfrac12 \operatorname*{mean}_{y_i \ne y_j} \cos(e_i, e_j)^2

For scores the pairs are drawn at random and :math:`L = \operatorname{mean}\,(\cos(e_i, e_j) - 1 + |y_i - y_j| / r)^2`,
r the range of the training scores. At each evaluation the linear model of ``klnorm_lib.study.fits.linear`` is fitted
for each C; the step and the C that do best on the validation rows are kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from klnorm_lib.study import evaluation, features, machine, padding
from klnorm_lib.study.fits import linear
from klnorm_lib.study.fits.loading import model_and_rows
from klnorm_lib.study.inputs import Inputs
from klnorm_lib.study.progress import Reporter
from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import Run


@dataclass(frozen=True)
class SetFit(linear.LinearFit):
    """Contrastive fine-tuning, then a linear model; ``grid`` holds the values of C tried on the validation rows.

    Raises ``ValueError`` unless ``grid`` is one or more different positive numbers.
    """

    name = "setfit"
    description = "SetFit-style: the encoder fine-tuned on pairs of rows, and a logistic regression on its features."
    used_fields = frozenset(f.name for f in fields(Run))

    @classmethod
    def build(cls, run: Run) -> SetFit:
        """As any linear fit; raises ``ValueError`` as well for a run whose batches do not hold two pairs."""
        rows = run.batch_size // run.gradient_accumulation
        if rows < 4 or rows % 2:
            raise ValueError(
                f"method 'setfit' compares the rows of a batch in pairs; batch_size={run.batch_size} with "
                f"gradient_accumulation={run.gradient_accumulation} makes batches of {rows}: take an even number from "
                "4 up"
            )
        return super().build(run)

    def fit(self, inputs: Inputs, record: Record, reporter: Reporter) -> dict[str, np.ndarray]:
        """Fine-tune the encoder on pairs of rows, choose step and C on validation, and predict the other splits.

        Returns log-probabilities, as logits would be, or scores.
        """
        import sklearn
        from transformers import DataCollatorWithPadding

        from klnorm_lib.study import training
        from klnorm_lib.study.fits.contrast import Embedder, Pairs, span_of

        record.versions["scikit-learn"] = sklearn.__version__
        run, task, regression = inputs.run, inputs.task, inputs.regression
        model, processor, rows = model_and_rows(inputs, record, reporter)
        labels = {name: np.asarray(split["label"]) for name, split in rows.items()}
        embedder = Embedder(model.base_model, span_of(labels["train"]) if regression else None)
        pad = DataCollatorWithPadding(processor)
        chosen: dict[int, tuple[float, Any]] = {}

        def embedded(model, names: Sequence[str], step: int) -> dict[str, np.ndarray]:
            return features.standardised({name: evaluation.predict(model, rows[name], pad, step) for name in names})

        def validate(model, step: int) -> dict[str, float | None]:
            parts = embedded(model, ("train", "validation"), step)
            # the first of equals
            best = max(linear.tried(self.grid, task, parts, labels), key=lambda tried: tried[-1])
            chosen[step] = best[0], best[1]
            return best[2]["validation"]

        with machine.deterministic(inputs.device):
            watch = training.LossWatch(None)
            evaluator = training.Evaluator(run, task.metrics[0], validate, watch, reporter)
            handle = embedder.register_forward_hook(watch)
            reporter.start(run.steps)
            begun = time.perf_counter()
            try:
                pairs = Pairs(rows["train"], regression, run.seed)
                training.train(
                    run, embedder, processor, pairs, evaluator, [], inputs.device,
                    collator=lambda items: pad([row for item in items for row in item]), each=2,
                )  # fmt: skip
            finally:
                handle.remove()
                record.evaluations = [{**e, "C": chosen[e["step"]][0]} for e in evaluator.history]
            record.time["train_seconds"] = round(time.perf_counter() - begun, 3)
            reporter.stop()

            evaluator.restore(embedder)
            padding.note(record, embedder)
            step = evaluator.best["step"]
            c, fitted = chosen[step]
            record.selected, record.validation = {**evaluator.best, "C": c}, evaluator.best_scores()
            added = linear.size(fitted)
            count = sum(p.numel() for p in embedder.parameters())
            record.parameters = {"total": count + added, "trainable": count + added, "added": added}
            record.method["added_parameters"] = added
            parts = embedded(embedder, [name for name in rows if name != "validation"], step)
        return {name: linear.logits(fitted, part, task.num_labels) for name, part in parts.items()}
