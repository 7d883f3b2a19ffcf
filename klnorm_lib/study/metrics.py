"""Metrics as ``evaluate.Metric`` subclasses, computed by scikit-learn and scipy, without the hub."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache

import datasets
import evaluate
import numpy as np
from scipy import stats
from sklearn import metrics as sk


class _Metric(evaluate.Metric):
    """A metric that lives in memory: no cache file, no lock, no download."""

    dtype = "int64"
    citation = "Pedregosa et al. 2011, Scikit-learn: Machine Learning in Python"

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation=self.citation,
            inputs_description="predictions and references, one entry per row",
            features=datasets.Features(
                {"predictions": datasets.Value(self.dtype), "references": datasets.Value(self.dtype)}
            ),
        )


class Accuracy(_Metric):
    """Share of rows whose predicted class is the labelled one."""

    def _compute(self, predictions, references):
        return {"accuracy": float(sk.accuracy_score(references, predictions))}


class F1(_Metric):
    """Harmonic mean of precision and recall: of class 1 when no label exceeds 1, else averaged over classes."""

    def _compute(self, predictions, references):
        top = max(*predictions, *references, 1)
        average = "binary" if top == 1 else "macro"
        return {"f1": float(sk.f1_score(references, predictions, average=average, zero_division=0))}


class MacroF1(_Metric):
    """F1 of every class that occurs, averaged with equal weight."""

    def _compute(self, predictions, references):
        return {"macro_f1": float(sk.f1_score(references, predictions, average="macro", zero_division=0))}


class Matthews(_Metric):
    """Matthews correlation of predicted and labelled classes; 0 for a constant prediction."""

    def _compute(self, predictions, references):
        return {"matthews": float(sk.matthews_corrcoef(references, predictions))}


class Pearson(_Metric):
    """Linear correlation of predicted and labelled values; nan when one of them is constant."""

    dtype = "float64"
    citation = "Virtanen et al. 2020, SciPy 1.0"

    def _compute(self, predictions, references):
        return {"pearson": _correlation(stats.pearsonr, predictions, references)}


class Spearman(_Metric):
    """Rank correlation of predicted and labelled values; nan when one of them is constant."""

    dtype = "float64"
    citation = "Virtanen et al. 2020, SciPy 1.0"

    def _compute(self, predictions, references):
        return {"spearman": _correlation(stats.spearmanr, predictions, references)}


def _correlation(function, predictions, references) -> float:
    if len(predictions) < 2 or np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return math.nan
    return float(function(predictions, references).statistic)


METRICS: dict[str, type[_Metric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "macro_f1": MacroF1,
    "matthews": Matthews,
    "pearson": Pearson,
    "spearman": Spearman,
}


@cache
def load(name: str) -> evaluate.Metric:
    """The metric called ``name``; raises ``ValueError`` naming those there are."""
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; choose one of {', '.join(METRICS)}")
    return METRICS[name]()


def compute(names: Iterable[str], predictions: Sequence, references: Sequence) -> dict[str, float | None]:
    """Each named metric of one set of predictions; ``None`` where it is undefined."""
    result: dict[str, float | None] = {}
    for name in names:
        value = load(name).compute(predictions=list(predictions), references=list(references))[name]
        result[name] = value if math.isfinite(value) else None
    return result


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    r"""Expected calibration error over equal-width bins of confidence.

    .. math:: \sum_b \tfrac{n_b}{n}\,\bigl|\mathrm{acc}_b - \mathrm{conf}_b\bigr|

    Shapes: ``probabilities`` (rows, classes), ``labels`` (rows,). Bin b holds confidences in (b/bins, (b+1)/bins].
    Source: Guo et al. 2017.
    """
    confidence = probabilities.max(-1)
    correct = probabilities.argmax(-1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = [abs(correct[index == b].sum() - confidence[index == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(labels))


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -ln p(label), in nats; probabilities are floored at 1e-12, so that one row cannot make it infinite."""
    return float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, None)).mean())
