"""A sum of arms with signs, paired by replicate in one setting: what ``compare`` and ``interaction`` have in common."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from klnorm_lib.study.errors import StudyError
from klnorm_lib.study.record import Record
from klnorm_lib.study.rows import decode
from klnorm_lib.study.spec import ELSEWHERE
from klnorm_lib.study.stats import aggregate, metric, resample
from klnorm_lib.study.stats.comparison import Comparison
from klnorm_lib.study.stats.mean import Mean, mean_of_replicates, mean_of_rows
from klnorm_lib.study.stats.paired import Replicate, Scores, verdict

Runs = dict[Replicate, Record]


def runs_of(records: Iterable[Record], arm: str, by: tuple[str, ...]) -> dict[tuple, Runs]:
    """The finished final runs of an arm by setting and replicate; raises ``StudyError`` for two of one replicate."""
    found: dict[tuple, Runs] = defaultdict(dict)
    for record in records:
        study = getattr(record, "study", None)
        if record.status != "finished" or not study or study["stage"] != "final" or study["arm"] != arm:
            continue
        setting = tuple(_field(record, name) for name in by)
        replicate = record.run["split_seed"], record.run["seed"]
        other = found[setting].setdefault(replicate, record)
        if other is not record and _run_fields(other) != _run_fields(record):
            raise StudyError(
                f"arm {arm!r} has two different runs for replicate {replicate} in setting {setting}; keep the records "
                "of one study or part, or add the field in which they differ to `by`"
            )
    return found


def _run_fields(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.run.items() if name not in ELSEWHERE}


def _field(record: Record, name: str) -> Any:
    if name in ("task", "encoder"):
        return getattr(record, name)["name"]
    if name == "size" and record.run.get("size") is None:
        return record.rows["train"] + record.rows["validation"]
    return record.study[name] if name in ("part", "name") else record.run.get(name)


def values(runs: Mapping[Replicate, Record], name: str | None) -> Scores:
    """The scores of runs by replicate, those left out that have none or one that is not finite."""
    found = {replicate: metric.value(record, name) for replicate, record in runs.items()}
    return {replicate: value for replicate, value in found.items() if value is not None and math.isfinite(value)}


def contrast(
    setting: Mapping[str, Any],
    names: tuple[str, str],
    arms: Sequence[tuple[int, Runs]],
    name: str | None,
    margin: float,
    level: float,
    seed: int,
) -> Comparison:
    """The sum over ``arms`` of sign times score, over the replicates that all arms have; ``p_holm`` is left open.

    ``names``: of the first arm and of what is subtracted from it. ``arms``: (sign, runs), the first with sign 1.
    """
    scores = [values(runs, name) for _, runs in arms]
    replicates = sorted(set.intersection(*map(set, scores)))
    notes = []
    missing = len(set().union(*(runs for _, runs in arms))) - len(replicates)
    if missing:
        notes.append(f"{missing} of {missing + len(replicates)} replicates left out, where an arm has no score")
    full = metric.full_name(next(iter(arms[0][1].values())), name)
    better_larger = metric.larger_is_better(full)
    signed = [
        sign * np.array([own[r] for r in replicates], dtype=float) for (sign, _), own in zip(arms, scores, strict=True)
    ]
    ours, rest = signed[0], sum(signed[1:])
    rows = _signed_rows([(sign, [runs[r] for r in replicates]) for sign, runs in arms], name)
    if isinstance(rows, str):
        notes.append(rows)
        rows = None
    change = ours + rest
    mean = mean_of_replicates(change) if rows is None else mean_of_rows(change, rows)
    low, high, said = _verdict(mean, rows, level, margin, better_larger, notes, len(arms))
    chance, chances = aggregate.probability_of_improvement(change if better_larger else -change, level)
    return Comparison(
        task=setting.get("task"),
        size=setting.get("size"),
        encoder=setting.get("encoder"),
        arm=names[0],
        baseline=names[1],
        metric=full,
        k=len(replicates),
        replicates=tuple(replicates),
        differences=change,
        scores_arm=ours,
        scores_baseline=-rest,
        mean=mean.value,
        low=low,
        high=high,
        seed_se=mean.seed_se,
        row_se=mean.row_se,
        bca=resample.bca(change, level, seed=seed),
        bootstrap=resample.percentile(change, level, seed=seed),
        p_improvement=chance,
        p_improvement_interval=chances,
        p_value=mean.p_value(),
        p_holm=math.nan,
        verdict=said,
        margin=margin,
        level=level,
        larger_is_better=better_larger,
        rows=None if rows is None else rows.shape[1],
        missing=missing,
        note="; ".join(notes),
        setting=setting,
    )


def _verdict(mean: Mean, rows, level, margin, better_larger, notes: list[str], arms: int) -> tuple[float, float, str]:
    if mean.has_spread:
        low, high = mean.interval(level)
        return low, high, verdict(low, high, margin, better_larger)
    if mean.seed_df < 1:
        notes.append("fewer than two replicates in common, so no spread can be estimated")
        return math.nan, math.nan, "cannot tell"
    if rows is not None and not rows.any():
        same = "both arms gave every test row the same score" if arms == 2 else "the arms add up on every test row"
        notes.append(f"{same} in every replicate")
        return 0.0, 0.0, "equivalent"
    notes.append("the difference is the same in every replicate, so no spread can be estimated")
    return math.nan, math.nan, "cannot tell"


def _signed_rows(arms: Sequence[tuple[int, Sequence[Record]]], name: str | None) -> np.ndarray | str:
    """The signed sum of the arms for each replicate and test row, or in words why there is none."""
    entries = [[metric.rows(record, name) for record in arm] for _, arm in arms]
    if not entries[0] or any(entry is None for arm in entries for entry in arm):
        return "no row scores: the error of the test rows is not included"
    scores = [[decode(entry) for entry in arm] for arm in entries]
    if len({len(of_run) for arm in scores for of_run in arm}) > 1:
        return "test rows differ from run to run: their error is not included"
    return sum(sign * np.stack(of_arm) for (sign, _), of_arm in zip(arms, scores, strict=True))
