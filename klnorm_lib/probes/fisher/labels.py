"""Labels of a batch: which sequences have one, and whether the loss can be computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.batches import take
from klnorm_lib.probes.fisher.losses import IGNORED, inputs_of, problem_of


class Labels:
    """Checks the labels of batches for the loss of ``kind`` of one model, and leaves out sequences without any."""

    def __init__(self, kind: str, model: nn.Module) -> None:
        self.kind, self.model = kind, model
        self._outputs: int | None = None

    def given(self, batch: Mapping[str, Any], first: int = 0) -> tuple[dict[str, Any], Tensor]:
        """The part of a batch that has labels, and the places of its sequences in the batch.

        ``first``: the number of the batch's first sequence, for errors. Raises ``ValueError`` without labels, and as
        :func:`check_labels` does.
        """
        labels = batch.get("labels")
        if not isinstance(labels, Tensor):
            near = next((key for key in ("label", "label_ids", "target") if key in batch), None)
            hint = f"rename {near!r} to 'labels'" if near else "give them as a tensor 'labels'"
            raise ValueError(f"a batch has no labels; {hint}, or give a loss of your own (loss=)")
        if not labels.dim():
            raise ValueError(f"labels have one row a sequence, got the single number {labels.item()}")
        if not len(labels):
            return dict(batch), torch.arange(0)
        if self.kind != "classification" and labels.dim() != 2:
            raise ValueError(f"labels of a language model have the shape (batch, tokens), got {tuple(labels.shape)}")
        if self._outputs is None:
            self._outputs = outputs_of(self.kind, self.model, batch)
        check_labels(self.kind, self.model, batch, self._outputs, first)
        problem = problem_of(self.model, labels) if self.kind == "classification" else None
        wanted = has_label(self.kind, batch, problem)
        return (dict(batch) if wanted.all() else take(batch, wanted)), wanted.cpu().nonzero()[:, 0]


def has_label(kind: str, batch: Mapping[str, Tensor], problem: str | None = None) -> Tensor:
    """(B,) booleans: sequences with at least one label that the loss of ``kind`` counts.

    ``problem``: of a classifier, as :func:`problem_of` names it. A score (regression) is never left out: -100 is one.
    """
    labels = batch["labels"]
    if problem == "regression":
        return torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    if kind == "causal":
        labels = labels[:, 1:]
    return (labels != IGNORED).reshape(len(labels), -1).any(1)


def check_labels(kind: str, model: nn.Module, batch: Mapping[str, Tensor], outputs: int, first: int = 0) -> None:
    """Whether ``batch["labels"]`` are such as the loss of ``kind`` can be computed from.

    ``outputs``: how many logits there are, for a token or a sequence. Raises ``ValueError`` naming what is wrong and in
    which sequence, counted from ``first``: class numbers outside of 0 ... outputs - 1 other than -100, numbers that
    are not whole where classes are wanted, scores that are not finite, shares outside of 0 ... 1, and shapes that do
    not fit.
    """
    labels, rows = batch["labels"], len(batch["labels"])
    if kind == "classification":
        problem = problem_of(model, labels)
        wanted = {"single_label": 1, "multi_label": outputs, "regression": outputs}[problem]
        if labels.numel() != rows * wanted:
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} and type {labels.dtype} do not fit a classifier with {outputs} "
                f"outputs: a {problem} problem wants {wanted} a sequence (class numbers are whole numbers; else see "
                "model.config.problem_type)"
            )
    else:
        problem = "single_label"
    flat = labels.reshape(rows, -1)
    if problem == "regression":
        wrong, right = ~flat.isfinite(), "a finite number"
    elif problem == "multi_label":
        counted = (flat != IGNORED).any(1, keepdim=True)  # a whole row of -100 is a sequence without labels
        wrong, right = counted & ~((flat >= 0) & (flat <= 1)), "0 or 1 (or between)"
    else:
        if labels.is_floating_point():
            more = "" if kind != "classification" else "; for regression set model.config.problem_type = 'regression'"
            raise ValueError(f"labels that name classes are whole numbers, got {labels.dtype}{more}")
        wrong = (flat != IGNORED) & ((flat < 0) | (flat >= outputs))
        right = f"0 to {outputs - 1}, or {IGNORED} for none"
    if wrong.any():
        row, place = (int(i) for i in wrong.nonzero()[0])
        more = int(wrong.any(1).sum()) - 1
        raise ValueError(
            f"label {flat[row, place].item()} of sequence {first + row}"
            + (f" (at {place})" if flat.shape[1] > 1 else "")
            + f" must be {right}; sequences are counted from 0, over all batches"
            + (f", and {more} more of this batch have such labels" if more else "")
        )


def outputs_of(kind: str, model: nn.Module, batch: Mapping[str, Tensor]) -> int:
    """How many logits a model has for a token (language models) or a sequence, by one pass over its first sequence."""
    row = {k: v[:1] if isinstance(v, Tensor) and v.dim() else v for k, v in batch.items()}
    if kind == "seq2seq" and "labels" in row:  # decoder inputs are made from them, and they are not checked yet
        row["labels"] = torch.zeros_like(row["labels"], dtype=torch.long)
    with torch.no_grad():
        return model(**inputs_of(kind, model, row)).logits.shape[-1]
