"""How far a model relies on a planted shortcut: its accuracy where cue and label agree, and where they do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from klnorm_lib.study import Record

SPLITS = {"on": "test", "off": "ood/shortcut_off", "reversed": "ood/shortcut_reversed"}


def line(accuracies: Mapping[float, float]) -> tuple[float, float]:
    r"""Accuracy on rows where the cue agrees with the label, :math:`A_+`, and where it conflicts, :math:`A_-`.

    Of test rows in which the cue agrees at rate r, a model gets a share

    .. math:: a(r) = r A_+ + (1 - r) A_-

    right, a straight line in r. ``accuracies``: rate to accuracy, for two rates or more; with more than two the line
    is fitted by least squares. Raises ``ValueError`` for fewer.
    """
    if len(accuracies) < 2:
        raise ValueError(f"a line needs the accuracy at two rates or more, got {len(accuracies)}")
    slope, at_zero = np.polyfit(list(accuracies), list(accuracies.values()), 1)
    return float(at_zero + slope), float(at_zero)


def gap(accuracies: Mapping[float, float]) -> float:
    r"""The shortcut gap, :math:`A_+ - A_-`: how much a right answer depends on the cue, 0 if the model ignores it.

    A model that answers by the cue alone has 1, one that goes against it -1.
    """
    agree, conflict = line(accuracies)
    return agree - conflict


def accuracies(record: Record) -> dict[str, float]:
    """Accuracy of a run with the shortcut on, off and reversed; raises ``LookupError`` where a test is missing."""
    found = {"test": record.test} | {f"ood/{name}": scores for name, scores in record.ood.items()}
    missing = [split for split in SPLITS.values() if split not in found]
    if missing:
        raise LookupError(
            f"the record of {record.task['name']!r} has no {' and no '.join(missing)}; run a task with a planted "
            "shortcut, such as 'biased_sentiment', with ood=True"
        )
    return {name: found[split]["accuracy"] for name, split in SPLITS.items()}


def rates(task: str) -> dict[str, float]:
    """Share of test rows whose cue agrees with the label, with the shortcut on, off and reversed."""
    from klnorm_lib import tasks

    planted = tasks.planted(task)["rate"]
    return {name: planted[split] for name, split in SPLITS.items()}


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row for each finished final run on a task with a shortcut that was tested on it.

    Columns: task, encoder, arm, label, split_seed, seed; on, off, reversed (accuracies); agree, conflict, gap
    (see :func:`line` and :func:`gap`).
    """
    rows = []
    for record in records:
        final = record.status == "finished" and record.study and record.study["stage"] == "final"
        if not final or not {split.removeprefix("ood/") for split in SPLITS.values()} <= {"test", *record.ood}:
            continue
        scores = accuracies(record)
        at = rates(record.task["name"])
        agree, conflict = line({at[name]: score for name, score in scores.items()})
        rows.append(
            {
                "task": record.task["name"],
                "encoder": record.encoder["name"],
                "arm": record.study["arm"],
                "label": record.study["label"],
                "split_seed": record.run["split_seed"],
                "seed": record.run["seed"],
                **scores,
                "agree": agree,
                "conflict": conflict,
                "gap": agree - conflict,
            }
        )
    return pd.DataFrame(rows)
