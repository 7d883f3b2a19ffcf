"""Records as tables: every run, or one row for each set of runs that differ in their seeds only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from klnorm_lib.study import Record, store

FEW = 10  # up to so many seeds, every score is written out
SEEDS = ("seed", "split_seed")


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a record: what was run, the primary metric on train, validation, test and each out-of-domain set."""
    return pd.DataFrame([_row(record) for record in records])


def _row(record: Record) -> dict[str, Any]:
    primary = record.task["primary_metric"]
    return {
        "task": record.task["name"],
        "size": record.rows.get("train", 0) + record.rows.get("validation", 0),
        "encoder": record.encoder["name"],
        "method": method_label(record),
        "study": record.study["name"] if record.study else None,
        "arm": record.study["arm"] if record.study else None,
        "stage": record.study["stage"] if record.study else None,
        "split_seed": record.run["split_seed"],
        "seed": record.run["seed"],
        "status": record.status,
        "metric": primary,
        "train": record.train.get(primary),
        "validation": record.validation.get(primary),
        "test": record.test.get(primary),
        **{f"ood/{name}": scores.get(primary) for name, scores in record.ood.items()},
        "ece": record.calibration["test"].get("ece"),
        "added_parameters": record.method["added_parameters"],
        "seconds": record.time["total_seconds"],
        "hash": record.hash[:12],
    }


def method_label(record: Record) -> str:
    """The method with the hyperparameters that were given, the others being at their defaults."""
    given = ", ".join(f"{key}={value}" for key, value in record.run["method_args"].items())
    return f"{record.method['name']}({given})" if given else record.method["name"]


def summary(records: Iterable[Record]) -> pd.DataFrame:
    """One row for each set of finished runs that differ in seeds only, with the number of seeds and every test score.

    Runs that only served to tune an arm of a study are no results, and are left out; a run that is there twice counts
    once. With more than ten runs in a set the scores give way to their mean and range. A set of one run says so; no
    interval is given, since the spread of a handful of scores is not one.
    """
    groups: dict[str, list[Record]] = {}
    reported = [r for r in records if r.status == "finished" and not (r.study and r.study["stage"] == "tuning")]
    for record in store.distinct(reported):
        fields = {key: value for key, value in record.run.items() if key not in SEEDS}
        rows = {k: v for k, v in record.task["checksums"].items() if k not in ("train", "validation")}
        decides = [fields, rows, record.encoder["sha256"] or record.encoder["revision"], record.method["version"]]
        key = json.dumps(decides, sort_keys=True)
        groups.setdefault(key, []).append(record)
    return pd.DataFrame([_group(members) for members in groups.values()])


def _group(records: Sequence[Record]) -> dict[str, Any]:
    primary = records[0].task["primary_metric"]
    first = _row(records[0])
    scores = [r.test.get(primary) for r in sorted(records, key=lambda r: (r.run["split_seed"], r.run["seed"]))]
    values = [s for s in scores if s is not None]
    if len(scores) <= FEW:
        shown = "  ".join("–" if s is None else f"{s:.3f}" for s in scores)
    else:
        shown = f"{min(values):.3f} to {max(values):.3f}" if values else "–"
    return {
        "task": first["task"],
        "size": first["size"],
        "encoder": first["encoder"],
        "method": first["method"],
        "steps": records[0].run["steps"],
        "learning rate": f"{records[0].run['learning_rate']:g}",
        "metric": primary,
        "runs": len(scores),
        "test, every run" if len(scores) <= FEW else "test, range": shown,
        "mean": sum(values) / len(values) if len(values) > 1 else None,
    }


def to_markdown(table: pd.DataFrame) -> str:
    """A table as markdown; numbers with three decimals, numeric columns set right."""
    if table.empty:
        return "No records yet.\n"
    right = [pd.api.types.is_numeric_dtype(table[column]) for column in table.columns]
    lines = [_line(map(str, table.columns)), _line("---:" if r else ":---" for r in right)]
    lines += [_line(cell(value) for value in row) for row in table.itertuples(index=False, name=None)]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in cells) + " |"


def cell(value: Any) -> str:
    """One value as text: a dash for nothing, three decimals for a fraction."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
