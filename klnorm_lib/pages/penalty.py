"""How strong the penalty of a KL term was in recorded runs, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from klnorm_lib.study import Record
from klnorm_lib.study.stats import value

AT = ("last", "tested")


def kl(record: Record, at: str = "last") -> float | None:
    r"""Mean KL of a run in nats, summed over features, on the training batches of the steps before one evaluation.

    Records hold the penalty that joined the loss, a mean over these steps s, so the KL is read from it:

    .. math:: \overline{\mathrm{KL}} = \sum_s \beta_s \mathrm{KL}_s \Big/ \sum_s \beta_s

    with :math:`\beta_s` from the method's schedule. ``at``: the ``last`` evaluation, when training ended, or the one
    whose weights were ``tested``. ``None`` where nothing was penalised (no penalty, beta 0), and with free bits, where
    the penalty is not proportional to the KL. Raises ``ValueError`` for another ``at``.
    """
    if at not in AT:
        raise ValueError(f"at={at!r} is unknown; choose one of {', '.join(AT)}")
    index = _evaluation(record, at)
    method = record.method["fields"]
    if index is None or not method.get("beta") or method.get("free_bits"):
        return None
    penalty = record.evaluations[index]["penalty"]
    first = record.evaluations[index - 1]["step"] if index else 0
    beta = _beta(method, first, record.evaluations[index]["step"])
    return penalty / beta if penalty is not None and beta else None


def cross_entropy(record: Record, at: str = "last") -> float | None:
    """Mean training loss in nats, penalty taken off, over the steps that :func:`kl` averages over."""
    index = _evaluation(record, at)
    if index is None:
        return None
    entry = record.evaluations[index]
    return entry["train_loss"] - (entry["penalty"] or 0.0)


def _evaluation(record: Record, at: str) -> int | None:
    """Index of the evaluation meant; ``None`` where nothing was trained."""
    if not record.evaluations:
        return None
    steps = [entry["step"] for entry in record.evaluations]
    return len(steps) - 1 if at == "last" else steps.index(record.selected["step"])


def _beta(method: Mapping[str, Any], first: int, last: int) -> float:
    """Mean KL weight over the optimiser steps ``first`` to ``last - 1``, counted from 0."""
    import torch

    from klnorm_lib.methods.schedule import Schedule

    schedule = Schedule(method.get("schedule", "constant"), method["beta"], method.get("warmup_steps", 1))
    return sum(float(schedule.beta_at(torch.tensor(step))) for step in range(first, last)) / (last - first)


def family(record: Record) -> str:
    """The form of KL-Norm (``A``, ``B`` or ``C``), ``VIB``, or the method's name."""
    return record.method["fields"].get("form") or {"vib": "VIB"}.get(record.method["name"], record.method["name"])


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row for each finished final run of a study, in order.

    Columns: arm, label, family, beta (NaN where the method has none), split_seed, seed, kl and cross_entropy (at the
    end of training), kl_tested, tested (step of the weights that were tested), score (the task's primary metric),
    validation, ece, nll, gap.
    """
    rows = []
    for record in records:
        if record.status != "finished" or not record.study or record.study["stage"] != "final":
            continue
        rows.append(
            {
                "arm": record.study["arm"],
                "label": record.study["label"],
                "family": family(record),
                "beta": record.method["fields"].get("beta"),
                "split_seed": record.run["split_seed"],
                "seed": record.run["seed"],
                "kl": kl(record),
                "cross_entropy": cross_entropy(record),
                "kl_tested": kl(record, at="tested"),
                "tested": record.selected.get("step") if record.selected else None,
                "score": value(record),
                "validation": record.validation[record.task["primary_metric"]],
                "ece": value(record, "ece"),
                "nll": value(record, "nll"),
                "gap": value(record, "gap"),
            }
        )
    numbers = ["beta", "kl", "cross_entropy", "kl_tested", "score", "validation", "ece", "nll", "gap"]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float)) if rows else pd.DataFrame(columns=numbers)
