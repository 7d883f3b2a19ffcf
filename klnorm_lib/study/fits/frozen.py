"""Frozen features and a linear model: the baseline that any fine-tuning has to beat.

``Run(task, encoder, method="frozen")`` leaves the encoder as it is and fits a multinomial logistic regression on its
features (see ``klnorm_lib.study.features``), or a ridge regression where the labels are scores. Instead of an
encoder, ``tf-idf`` (texts) or ``log-mel`` (sound) can be named.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from klnorm_lib.encoders.sources import EncoderSource
from klnorm_lib.study import features
from klnorm_lib.study.evaluation import RULE
from klnorm_lib.study.fits import linear
from klnorm_lib.study.inputs import Inputs
from klnorm_lib.study.progress import Reporter
from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import Run


@dataclass(frozen=True)
class Frozen(linear.LinearFit):
    r"""A linear model on frozen features; ``grid`` holds the values of C that are tried on the validation rows.

    .. math:: \min_W \tfrac12\lVert W\rVert^2 + C \sum_i -\ln\operatorname{softmax}(W x_i + b)_{y_i}

    For scores the sum is of half squared errors, which is ridge regression with penalty 1/C. The value of C with the
    best primary metric on the validation rows is kept, among equals the one with the lowest validation loss, then the
    smallest. Raises ``ValueError`` unless ``grid`` is one or more different positive numbers.
    """

    name = "frozen"
    description = "Features of the encoder as it is (or tf-idf, or log-mel), and a logistic regression on them."
    takes_steps = False
    shares_features = True
    used_fields = frozenset(
        {
            *("task", "size", "split_seed", "source", "ood", "test_rows", "ood_rows"),
            *("data", "text", "text_pair", "audio", "label", "quiet"),
            *("encoder", "encoder_source", "max_length", "max_seconds"),
            *("method", "method_args", "seed", "device"),
        }
    )
    featurisers = MappingProxyType(
        {features.TF_IDF: "words and word pairs of texts", features.LOG_MEL: "log-mel energies of sound"}
    )

    def encoder(self, run: Run, task) -> EncoderSource:
        """As for any fit, or ``tf-idf`` or ``log-mel``; raises ``ValueError`` when that one does not fit the task."""
        if run.encoder not in self.featurisers:
            return super().encoder(run, task)
        audio = task.kind == "audio"
        if (run.encoder == features.LOG_MEL) != audio:
            kind, fitting = ("sound", features.LOG_MEL) if audio else ("text", features.TF_IDF)
            raise ValueError(
                f"{run.encoder} does not fit the task {task.name!r}, which is {kind}; use encoder {fitting!r}"
            )
        return EncoderSource(run.encoder, "featuriser", run.encoder, None, None)

    def fit(self, inputs: Inputs, record: Record, reporter: Reporter) -> dict[str, np.ndarray]:
        """Fit one model a value of C, keep the best on validation, and predict the other splits.

        Returns log-probabilities, as logits would be, or scores.
        """
        import sklearn

        task = inputs.task
        begun = time.perf_counter()
        record.versions["scikit-learn"] = sklearn.__version__
        rows, encoder_parameters = _features(inputs)
        labels = {name: np.asarray(split["label"]) for name, split in inputs.data.items()}
        loss, best = "mse" if inputs.regression else "nll", None
        for step, (c, model, scores, key) in enumerate(linear.tried(self.grid, task, rows, labels), 1):
            entry = {"step": step, "C": c, "train_loss": scores["train"][loss], "penalty": None}
            record.evaluations.append({**entry, "validation": scores["validation"]})
            better = best is None or key > best[0]
            if better:
                best = key, model
                record.selected = {"step": step, "C": c, "metric": task.metrics[0], "rule": RULE}
                record.validation = scores["validation"]
            reporter.evaluation(step, len(self.grid), {"C": c, **scores["validation"]}, better)
        model = best[1]
        added = linear.size(model)
        record.parameters = {"total": encoder_parameters + added, "trainable": added, "added": added}
        record.method["added_parameters"] = added
        logits = {n: linear.logits(model, part, task.num_labels) for n, part in rows.items() if n != "validation"}
        record.time["train_seconds"] = round(time.perf_counter() - begun, 3)
        return logits


def _features(inputs: Inputs) -> tuple[dict[str, Any], int]:
    """Split -> features (rows, features), and the number of parameters of the encoder that made them."""
    run, task, data = inputs.run, inputs.task, inputs.data
    if run.encoder == features.TF_IDF:
        return features.tf_idf(data, task.text_columns), 0
    if run.encoder == features.LOG_MEL:
        return features.log_mels(data, run.max_seconds), 0
    return features.encoded(run, inputs.encoder, task, data, inputs.provenance["checksums"], inputs.device)
