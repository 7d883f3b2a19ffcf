"""What was tuned in a study: how many trials each arm had, what was chosen, and where the choice lies on an edge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pandas as pd

from klnorm_lib.study import Record

WORDS = {"learning_rate": "rate", "weight_decay": "decay", "lr": "rate"}


def chosen(records: Iterable[Record]) -> pd.DataFrame:
    """One row for each setting, arm and hyperparameter of the final runs of a study.

    Columns: task, size, encoder, arm, label, trials, name, value, tried (values in the grid, ascending where they are
    numbers), edge (whether the value is the smallest or the largest of at least two numbers tried, where a value
    beyond might have been better). ``records``: those without ``study``, and tuning runs, are passed over.
    """
    rows: dict[tuple, dict[str, Any]] = {}
    for record in records:
        study = record.study
        if not study or study["stage"] != "final":
            continue
        setting = {"task": record.task["name"], "size": record.run["size"], "encoder": record.run["encoder"]}
        of = setting | {"arm": study["arm"], "label": study["label"], "trials": study["trials"]}
        for name, value in study["trial"].items():
            tried = _sorted({trial[name] for trial in study.get("grid", [study["trial"]])})
            number = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in tried)
            edge = number and len(tried) > 1 and value in (tried[0], tried[-1])
            rows[(*of.values(), name)] = of | {"name": name, "value": value, "tried": tried, "edge": edge}
    columns = ["task", "size", "encoder", "arm", "label", "trials", "name", "value", "tried", "edge"]
    return pd.DataFrame(list(rows.values()), columns=columns)


def _sorted(values: Iterable[Any]) -> list[Any]:
    values = list(values)
    return sorted(values) if all(isinstance(v, (int, float)) for v in values) else sorted(values, key=str)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`chosen` as a table of arms by tasks; a star marks a value on the edge of its grid."""
    columns: dict[str, dict[str, list[str]]] = {}
    several = [name for name in ("size", "encoder") if found[name].nunique() > 1]
    for row in found.itertuples():
        column = ", ".join([row.task, *(str(getattr(row, name)).split("/")[-1] for name in several)])
        value = f"{row.value:g}" if isinstance(row.value, float) else str(row.value)
        text = f"{WORDS.get(row.name, row.name)} {value}{'*' if row.edge else ''}"
        columns.setdefault(column, {}).setdefault(row.label, []).append(text)
    labels = list(dict.fromkeys(found["label"]))
    trials = found.drop_duplicates("label").set_index("label")["trials"]
    shown = pd.DataFrame({column: {k: ", ".join(v) for k, v in part.items()} for column, part in columns.items()})
    return shown.reindex(labels).fillna("–").assign(trials=trials.reindex(labels))


def leads(records: Iterable[Record]) -> pd.DataFrame:
    """By how much each chosen trial won: one row for each setting and tuned arm, the closest first.

    Columns: task, size, encoder, arm, label, best and second (mean primary validation score of the two best trials over
    the tuning replicates), lead (best minus second), rows (validation rows behind each mean), row (what one of them is
    worth). Arms of which a trial is not recorded are left out. ``records``: tuning runs are used, of one study.
    """
    tried: dict[tuple, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        study = record.study
        if study and study["stage"] == "tuning" and record.status == "finished":
            key = record.task["name"], record.run["size"], record.run["encoder"], study["arm"], study["label"]
            tried[key][repr(sorted(study["trial"].items()))].append(record)
    rows = []
    for key, trials in tried.items():
        one = next(iter(trials.values()))[0]
        if len(trials) < one.study["trials"]:
            continue
        metric = one.task["primary_metric"]
        means = sorted((sum(r.validation[metric] for r in of) / len(of) for of in trials.values()), reverse=True)
        seen = sum(r.rows["validation"] for r in next(iter(trials.values())))
        rows.append([*key, means[0], means[1], means[0] - means[1], seen, 1 / seen])
    columns = ["task", "size", "encoder", "arm", "label", "best", "second", "lead", "rows", "row"]
    return pd.DataFrame(rows, columns=columns).sort_values("lead", kind="stable", ignore_index=True)


def in_words(found: pd.DataFrame) -> str:
    """How many chosen values lie on an edge of their grid, and of which arms."""
    if found.empty:
        return "No arm was tuned."
    trials = sorted(set(found["trials"]))
    wide = found[found["tried"].map(len) > 2]
    edges = wide[wide["edge"]]
    text = f"{' or '.join(map(str, trials))} trials for every tuned arm. Of the values chosen out of three or more, "
    text += f"{len(edges)} of {len(wide)} lie on an edge, where a value beyond might have been better"
    by_arm = edges.groupby("label", sort=False).size()
    text += f"{': ' if len(edges) else ''}{', '.join(f'{label} {count}' for label, count in by_arm.items())}."
    two = (found["tried"].map(len) == 2).sum()
    return text + (f" {two} values were chosen out of two, which are edges both." if two else "")
