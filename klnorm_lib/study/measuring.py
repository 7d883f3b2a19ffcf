"""From the logits of a finished run to the numbers of its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from klnorm_lib.study import evaluation, rows
from klnorm_lib.study.record import Record


def measure(record: Record, task, logits: Mapping[str, np.ndarray], labels: Mapping[str, Sequence]) -> None:
    """Write metrics, gap, calibration and row scores of the train, test and out-of-domain rows into ``record``.

    ``logits``: split -> (rows, outputs), each predicted once with what was selected; ``labels``: split -> (rows,).
    """
    regression = task.label_names is None
    for name in ("train", "test"):
        setattr(record, name, evaluation.score(task.metrics, logits[name], labels[name], regression))
    record.gap = {
        name: None if None in (record.train[name], value) else record.train[name] - value
        for name, value in record.test.items()
    }
    predicted = logits["test"][:, 0] if regression else logits["test"].argmax(-1)
    _keep_row_scores(record, "test", predicted, labels["test"])
    if not regression:
        record.calibration["test"] = evaluation.calibration(
            evaluation.softmax(logits["test"]), np.asarray(labels["test"])
        )
    for split in (name for name in logits if name.startswith("ood/")):
        _out_of_domain(record, task, split, logits[split], labels[split])


def _out_of_domain(record: Record, task, split: str, logits: np.ndarray, labels: Sequence) -> None:
    name = split.removeprefix("ood/")
    if task.label_names is None:
        record.ood[name] = evaluation.score(task.metrics, logits, labels, True)
        _keep_row_scores(record, split, logits[:, 0], labels)
        return
    classes = task.ood[name]
    merged = evaluation.merge(evaluation.softmax(logits), classes.groups)
    targets = np.array([classes.target[int(label)] for label in labels])
    record.ood[name] = evaluation.score_probabilities(task.metrics, merged, targets)
    record.calibration["ood"][name] = evaluation.calibration(merged, targets)
    _keep_row_scores(record, split, merged.argmax(-1), targets)


def _keep_row_scores(record: Record, split: str, predicted: Any, labels: Sequence) -> None:
    metric = record.task["primary_metric"]
    values = rows.scores(metric, predicted, labels)
    if values is not None:
        record.row_scores[split] = rows.encode(metric, values)
