"""From a model and rows to predictions and their metrics; nothing here draws a random number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from klnorm_lib.study import padding
from klnorm_lib.study.errors import ADVICE, NotFiniteError

RULE = (
    "the evaluation with the highest primary validation metric; among equals the lowest validation loss; "
    "then the earliest"
)
EVALUATION_BATCH = 64
EVALUATION_SAMPLES = 1_280_000  # of sound in one batch, padding included: 80 s at 16 kHz


def tokenise(processor, split, columns: Sequence[str], max_length: int):
    """A split as token ids and ``label``; padding is left to the batch. ``columns``: one or two text columns."""
    import datasets

    texts = [list(map(str, split[column])) for column in columns]
    encoded = processor(*texts, truncation=True, max_length=max_length)
    return datasets.Dataset.from_dict({**encoded, "label": list(split["label"])})


def predict(model, rows, collator, step: int = 0) -> np.ndarray:
    """Logits (rows, outputs) in float32, evaluation mode, rows of similar length together.

    Rows of a model whose logits depend on padding (measured, see ``klnorm_lib.study.padding``) meet only rows of their
    own length, so that a row has the same logits whatever rows are beside it.
    ``step`` is named in the ``NotFiniteError`` that a NaN or infinite logit raises.
    """
    import torch

    was_training = model.training
    model.eval()
    columns = [name for name in rows.column_names if name != "label"]
    examples = list(rows.select_columns(columns))
    sound = "input_values" in columns
    lengths = np.array([len(example["input_values" if sound else "input_ids"]) for example in examples])
    order = np.argsort(lengths, kind="stable")
    device = next(model.parameters()).device

    def outputs(rows: list) -> np.ndarray:
        batch = collator(rows)
        return model(**{name: value.to(device) for name, value in batch.items()}).logits.float().cpu().numpy()

    pieces = []
    try:
        with torch.no_grad():
            apart = padding.of_model(model, outputs, examples, lengths) > 0 or _group_norm(model)
            for part in batches(lengths[order], EVALUATION_SAMPLES if sound else None, apart):
                pieces.append(outputs([examples[i] for i in order[part]]))
    finally:
        model.train(was_training)
    sorted_logits = np.concatenate(pieces)
    if not np.isfinite(sorted_logits).all():
        raise NotFiniteError(f"a prediction is NaN or infinite at step {step}. {ADVICE}", step)
    logits = np.empty_like(sorted_logits)
    logits[order] = sorted_logits
    return logits


def _group_norm(model) -> bool:
    """Whether the configuration says that padding changes a clip: its group normalisation runs over time."""
    return getattr(model.config, "feat_extract_norm", None) == "group"


def batches(lengths: np.ndarray, budget: int | None = None, equal: bool = False) -> Iterator[slice]:
    """Slices of at most ``EVALUATION_BATCH`` rows, ``lengths`` ascending; rows times longest stays within ``budget``.

    A row that is longer than the budget makes a batch of its own. With ``equal`` no batch needs padding.
    """
    start = 0
    while start < len(lengths):
        stop = min(start + EVALUATION_BATCH, len(lengths))
        if equal:
            stop = min(stop, int(np.searchsorted(lengths, lengths[start], side="right")))
        while budget is not None and stop > start + 1 and (stop - start) * lengths[stop - 1] > budget:
            stop -= 1
        yield slice(start, stop)
        start = stop


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities (rows, classes) in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    exponent = np.exp(shifted)
    return exponent / exponent.sum(-1, keepdims=True)


def merge(probabilities: np.ndarray, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Probabilities of out-of-domain classes: each the sum over the training labels it stands for.

    Shapes: (rows, training labels) -> (rows, groups). Training labels that no group names are left out, and the rest
    is divided by its sum.
    """
    merged = np.stack([probabilities[:, list(group)].sum(-1) for group in groups], axis=-1)
    return merged / np.clip(merged.sum(-1, keepdims=True), 1e-300, None)


def score(names: Sequence[str], logits: np.ndarray, labels: Sequence, regression: bool) -> dict[str, float | None]:
    """Metrics and mean loss: ``nll`` (nats) for classes, ``mse`` for values."""
    from klnorm_lib.study import metrics  # evaluate and scikit-learn take seconds to import

    if regression:
        values = logits[:, 0].astype(np.float64)
        result = metrics.compute(names, values, [float(v) for v in labels])
        return {**result, "mse": float(np.mean((values - np.asarray(labels, dtype=np.float64)) ** 2))}
    probabilities = softmax(logits)
    return score_probabilities(names, probabilities, np.asarray(labels))


def score_probabilities(names: Sequence[str], probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Metrics of the most probable class, and ``nll`` in nats."""
    from klnorm_lib.study import metrics

    result = metrics.compute(names, probabilities.argmax(-1).tolist(), [int(v) for v in labels])
    return {**result, "nll": metrics.negative_log_likelihood(probabilities, labels)}


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Expected calibration error (15 equal-width bins) and negative log-likelihood (nats)."""
    from klnorm_lib.study import metrics

    return {
        "ece": metrics.expected_calibration_error(probabilities, labels),
        "nll": metrics.negative_log_likelihood(probabilities, labels),
    }
