"""A linear model on fixed features, its C chosen on the validation rows; for ``frozen`` and ``setfit``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from klnorm_lib.study import evaluation
from klnorm_lib.study.fit_protocol import Fit
from klnorm_lib.study.plain import to_plain, without_later
from klnorm_lib.study.spec import Run

GRID = (0.1, 1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class LinearFit(Fit):
    """What ``frozen`` and ``setfit`` have in common: ``grid``, the values of C tried on the validation rows.

    Raises ``ValueError`` unless ``grid`` is one or more different positive numbers.
    """

    grid: tuple[float, ...] = GRID

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", checked(self.grid))

    @classmethod
    def build(cls, run: Run) -> LinearFit:
        """The fit with a run's hyperparameters; raises ``ValueError`` for one that it does not have."""
        unknown = sorted(set(run.method_args) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"{cls.name} has no hyperparameter {', '.join(unknown)}; it has grid (values of C)")
        return cls(**run.method_args)

    def hyperparameters(self) -> dict[str, Any]:
        """``grid``, as plain JSON."""
        return without_later(to_plain(asdict(self)), self.later)


def checked(grid: Any) -> tuple[float, ...]:
    """The values of C in ascending order; raises ``ValueError`` unless they are different positive numbers."""
    given = grid if isinstance(grid, (list, tuple)) else (grid,)
    numbers = all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in given)
    if not given or not numbers or not all(0 < c < math.inf for c in given) or len(set(given)) < len(given):
        raise ValueError(f"grid must hold one or more different positive values of C, got {to_plain(grid)!r}")
    return tuple(sorted(map(float, given)))


def fitted(c: float, rows, labels: Sequence, regression: bool):
    """A logistic regression, or a ridge regression with penalty 1/C, fitted to ``rows`` (rows, features)."""
    from sklearn.linear_model import LogisticRegression, Ridge

    model = Ridge(alpha=1.0 / c) if regression else LogisticRegression(C=c, max_iter=2000)
    return model.fit(rows, labels)


def tried(grid: Sequence[float], task, rows: Mapping, labels: Mapping) -> Iterator[tuple[float, Any, dict, tuple]]:
    """For each C: C, the model, its scores on ``train`` and ``validation``, and a key, largest for the best."""
    regression, primary = task.label_names is None, task.metrics[0]
    for c in grid:
        model = fitted(c, rows["train"], labels["train"], regression)
        scores = {
            name: evaluation.score(task.metrics, logits(model, rows[name], task.num_labels), labels[name], regression)
            for name in ("train", "validation")
        }
        value, loss = scores["validation"][primary], scores["validation"]["mse" if regression else "nll"]
        yield c, model, scores, (-math.inf if value is None else value, -loss)


def logits(model, rows, outputs: int) -> np.ndarray:
    """Log-probabilities (rows, classes), whose softmax is the probabilities again, or scores (rows, 1)."""
    if outputs == 1:
        return np.asarray(model.predict(rows)).reshape(-1, 1)
    values = np.full((rows.shape[0], outputs), -50.0)  # a class without a training row
    values[:, model.classes_.astype(int)] = np.maximum(model.predict_log_proba(rows), -50.0)
    return values


def size(model) -> int:
    """Numbers that the fit has set."""
    return int(model.coef_.size + np.size(model.intercept_))
