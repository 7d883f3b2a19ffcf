"""One number a test row whose mean is the metric, for the sampling error of the test rows."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def scores(metric: str, predictions: Sequence, labels: Sequence) -> np.ndarray | None:
    r"""Row scores (rows,) in float64: 0 or 1 for accuracy, else the jackknife's pseudo-values.

    .. math:: s_i = n\,\hat\theta - (n - 1)\,\hat\theta_{-i}

    with :math:`\hat\theta` the metric on all n rows and :math:`\hat\theta_{-i}` without row i. Their mean is the
    metric (but for the jackknife's bias, of order 1/n, which is taken off), their variance over n estimates the
    metric's sampling variance. ``None`` where the metric is undefined. Source: Efron and Tibshirani 1993, chapter 11.
    """
    from klnorm_lib.study import metrics  # evaluate and scikit-learn take seconds to import

    predictions, labels = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if metric == "accuracy":
        return (predictions == labels).astype(np.float64)
    n = len(labels)
    whole = metrics.compute([metric], predictions.tolist(), labels.tolist())[metric]
    if whole is None or n < 3:
        return None
    without = _WITHOUT.get(metric, _one_by_one(metric))(predictions, labels)
    if not np.isfinite(without).all():
        return None
    values = n * whole - (n - 1) * without
    return values - values.mean() + whole


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The correlation without each row, from sums of which one row's part is taken off."""
    x, y, n = x - x.mean(), y - y.mean(), len(x) - 1
    sx, sy = -x, -y  # sums of the centred values without row i
    xx, yy, xy = (x @ x) - x * x, (y @ y) - y * y, (x @ y) - x * y
    with np.errstate(divide="ignore", invalid="ignore"):
        return (xy - sx * sy / n) / np.sqrt((xx - sx * sx / n) * (yy - sy * sy / n))


def _matthews(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Matthews correlation without each row: rows of one cell of the confusion matrix leave the same one behind."""
    classes, codes = np.unique(np.concatenate([predictions, labels]), return_inverse=True)
    p, t, k = codes[: len(labels)], codes[len(labels) :], len(classes)
    table = np.zeros((k, k))
    np.add.at(table, (t, p), 1)
    left = np.empty((k, k))
    for i, j in zip(*np.nonzero(table), strict=True):
        table[i, j] -= 1
        left[i, j] = _matthews_of(table)
        table[i, j] += 1
    return left[t, p]


def _matthews_of(table: np.ndarray) -> float:
    n, correct, true, predicted = table.sum(), np.trace(table), table.sum(1), table.sum(0)
    scale = np.sqrt((n**2 - predicted @ predicted) * (n**2 - true @ true))
    return 0.0 if scale == 0 else (correct * n - true @ predicted) / scale


def _one_by_one(metric: str):
    from klnorm_lib.study import metrics

    def without(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        values = np.empty(len(labels))
        for i in range(len(labels)):
            rest = np.delete(predictions, i), np.delete(labels, i)
            value = metrics.compute([metric], *(part.tolist() for part in rest))[metric]
            values[i] = np.nan if value is None else value
        return values

    return without


_WITHOUT = {"pearson": _pearson, "matthews": _matthews}


def encode(metric: str, values: np.ndarray) -> dict[str, Any]:
    """Row scores as JSON: bits where all are 0 or 1, else float16, both in base64."""
    bits = bool(np.isin(values, (0.0, 1.0)).all())
    raw = np.packbits(values.astype(bool)) if bits else values.astype("<f2")
    packed = base64.b64encode(raw.tobytes()).decode("ascii")
    return {"metric": metric, "n": len(values), "kind": "bits" if bits else "float16", "values": packed}


def decode(entry: Mapping[str, Any]) -> np.ndarray:
    """The row scores (rows,) in float64 that :func:`encode` wrote; raises ``ValueError`` if their number is wrong."""
    raw = base64.b64decode(entry["values"])
    if entry["kind"] == "bits":
        values = np.unpackbits(np.frombuffer(raw, np.uint8))[: entry["n"]].astype(np.float64)
    else:
        values = np.frombuffer(raw, "<f2").astype(np.float64)
    if len(values) != entry["n"]:
        raise ValueError(f"row scores should hold {entry['n']} rows, they hold {len(values)}: the record was edited")
    return values
