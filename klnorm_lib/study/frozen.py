"""Frozen features and a linear model: the baseline that any fine-tuning has to beat.

``Run(task, encoder, method="frozen")`` leaves the encoder as it is and fits a multinomial logistic regression on its
features (see ``klnorm_lib.study.features``), or a ridge regression where the labels are scores. Instead of an
encoder, ``tf-idf`` (texts) or ``log-mel`` (sound) can be named.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from klnorm_lib.encoders.sources import EncoderSource
from klnorm_lib.study import features, linear
from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import Run
from klnorm_lib.study.training import RULE

NAME = "frozen"
DESCRIPTION = "Features of the encoder as it is (or tf-idf, or log-mel), and a logistic regression on them."
FEATURISERS = {
    features.TF_IDF: "words and word pairs of texts, only with method frozen",
    features.LOG_MEL: "log-mel energies of sound, only with method frozen",
}
USED = ("task", "encoder", "method", "size", "split_seed", "seed", "method_args", "source", "encoder_source")
USED += (
    "max_length",
    "device",
    "data",
    "text",
    "text_pair",
    "label",
    "ood",
    "max_seconds",
    "test_rows",
    "audio",
    "ood_rows",
)


@dataclass(frozen=True)
class Frozen(linear.Readout):
    r"""A linear model on frozen features; ``grid`` holds the values of C that are tried on the validation rows.

    .. math:: \min_W \tfrac12\lVert W\rVert^2 + C \sum_i -\ln\operatorname{softmax}(W x_i + b)_{y_i}

    For scores the sum is of half squared errors, which is ridge regression with penalty 1/C. The value of C with the
    best primary metric on the validation rows is kept, among equals the one with the lowest validation loss, then the
    smallest. Raises ``ValueError`` unless ``grid`` is one or more different positive numbers.
    """

    name = NAME


def build(**given) -> Frozen:
    """``Frozen`` with these hyperparameters; raises ``ValueError`` for one that it does not have."""
    return Frozen.build(**given)


def check(run: Run) -> None:
    """Raise ``ValueError`` when a field of the training is set, since nothing is trained by gradient steps."""
    idle = [f for f in fields(Run) if f.name not in USED and getattr(run, f.name) != f.default]
    if idle:
        names = ", ".join(f.name for f in idle)
        raise ValueError(f"method 'frozen' takes no gradient steps, so {names} would have no effect; leave out {names}")


def featuriser(name: str, task) -> EncoderSource:
    """What a record says in place of an encoder; raises ``ValueError`` when it does not fit the kind of task."""
    sound = task.kind == "audio"
    if (name == features.LOG_MEL) != sound:
        kind, fitting = ("sound", features.LOG_MEL) if sound else ("text", features.TF_IDF)
        raise ValueError(f"{name} does not fit the task {task.name!r}, which is {kind}; use encoder {fitting!r}")
    return EncoderSource(name, "featuriser", name, None, None)


def refuse_featuriser(run: Run) -> None:
    """Raise ``ValueError`` when ``tf-idf`` or ``log-mel`` is to be fine-tuned."""
    if run.encoder in FEATURISERS:
        raise ValueError(
            f"{run.encoder} has no weights to fine-tune: use it with method 'frozen', or method {run.method!r} with "
            "one of `klnorm encoders`"
        )


def fit(record: Record, run: Run, task, data, method: Frozen, source, device: str, reporter) -> dict[str, np.ndarray]:
    """Fit one model a value of C, keep the best on validation, and predict every split.

    Returns log-probabilities (or scores) for all splits but validation, as logits would be; fills what was tried, what
    was selected and the numbers of parameters into ``record``.
    """
    import sklearn

    record.versions["scikit-learn"] = sklearn.__version__
    record.method["added_parameters"] = None
    rows, encoder_parameters = _features(run, source, task, data, record.task["checksums"], device)
    labels = {name: np.asarray(split["label"]) for name, split in data.items()}
    loss, best = "mse" if task.label_names is None else "nll", None
    for step, (c, model, scores, key) in enumerate(linear.tried(method.grid, task, rows, labels), 1):
        entry = {"step": step, "C": c, "train_loss": scores["train"][loss], "penalty": None}
        record.evaluations.append({**entry, "validation": scores["validation"]})
        better = best is None or key > best[0]
        if better:
            best = key, model
            record.selected = {"step": step, "C": c, "metric": task.metrics[0], "rule": RULE}
            record.validation = scores["validation"]
        reporter.evaluation(step, len(method.grid), {"C": c, **scores["validation"]}, better)
    model = best[1]
    added = linear.size(model)
    record.parameters = {"total": encoder_parameters + added, "trainable": added, "added": added}
    record.method["added_parameters"] = added
    return {name: linear.logits(model, part, task.num_labels) for name, part in rows.items() if name != "validation"}


def _features(run: Run, source, task, data, checksums, device: str):
    if run.encoder == features.TF_IDF:
        return features.tf_idf(data, task.text_columns), 0
    if run.encoder == features.LOG_MEL:
        return features.log_mels(data, run.max_seconds), 0
    return features.encoded(run, source, task, data, checksums, device)
