"""Two arms of a study, cell by cell: the mean paired difference, its errors, and what may be said of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from klnorm_lib.study.errors import StudyError
from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import ELSEWHERE
from klnorm_lib.study.stats import aggregate, metric, multiple, resample
from klnorm_lib.study.stats.mean import Mean, mean_of_draws, mean_of_rows
from klnorm_lib.study.stats.paired import Draw, Scores, common, verdict

MARGIN, LEVEL = 0.01, 0.95


@dataclass(frozen=True, eq=False)
class Comparison:
    """Arm minus baseline in one cell: a difference for each draw that both have, and what they say together.

    ``low`` and ``high`` bound the mean difference at ``level``, with the error of the test rows where ``rows`` (their
    number) is given; the ``verdict`` follows from them and ``margin``. ``bca`` and ``bootstrap`` (percentile) are of
    the draws alone. ``p_improvement`` is the share of draws in which the arm is better, ties by half. ``p_holm`` is
    corrected over the comparisons that were made together. ``missing`` counts the draws that only one arm has a score
    for, ``note`` says what else is not there; an interval is NaN where none can be given. ``cell`` holds what ``by``
    named.
    """

    task: str | None
    size: int | None
    encoder: str | None
    arm: str
    baseline: str
    metric: str
    k: int
    draws: tuple[Draw, ...]
    differences: np.ndarray
    scores_arm: np.ndarray
    scores_baseline: np.ndarray
    mean: float
    low: float
    high: float
    seed_se: float
    row_se: float
    bca: tuple[float, float]
    bootstrap: tuple[float, float]
    p_improvement: float
    p_improvement_interval: tuple[float, float]
    p_value: float
    p_holm: float
    verdict: str
    margin: float
    level: float
    larger_is_better: bool
    rows: int | None
    missing: int
    note: str
    cell: Mapping[str, Any]

    @property
    def within_margin(self) -> bool:
        """Whether the interval lies inside the margin; a ``better`` within the margin is sure and small."""
        return -self.margin < self.low and self.high < self.margin

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}] {self.verdict}, {self.k} draws"


def compare(
    records: Iterable[Record],
    arm: str,
    baseline: str,
    metric: str | None = None,
    by: Sequence[str] = ("task", "size", "encoder"),
    margin: float = MARGIN,
    level: float = LEVEL,
    seed: int = 0,
) -> list[Comparison]:
    """Compare two arms of a study in every cell that has both, in order of first appearance.

    Draws that only one of them has are left out and counted in ``note``. ``metric``: ``None`` for each task's primary
    one, else see ``klnorm_lib.study.stats.value``; the difference is always arm minus baseline. ``by``: what a cell
    is; ``task``, ``size``, ``encoder``, ``part`` or any field of a run. An arm that has an encoder of its own in every
    cell is compared with the baseline at each of the baseline's encoders. ``margin``: the difference, in the metric's
    unit, below which arms count as equivalent. Holm's correction is over all comparisons returned. ``seed``: of the
    bootstraps.

    Raises ``LookupError`` when no cell has both arms, ``StudyError`` when one draw of an arm has two runs in a cell.
    """
    cells = _cells(records, (arm, baseline), tuple(by))
    found = [
        _compare(dict(zip(by, place, strict=True)), (arm, baseline), *pair, metric, margin, level, seed)
        for place, pair in cells.items()
    ]
    if not found:
        raise LookupError(
            f"no cell has finished runs of both {arm!r} and {baseline!r} among the records of a study's final stage"
        )
    return with_holm(found)


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with Holm's correction over all of them: the family is what stands in one list."""
    corrected = multiple.holm([c.p_value for c in comparisons])
    return [replace(c, p_holm=float(p)) for c, p in zip(comparisons, corrected, strict=True)]


def scores(
    records: Iterable[Record],
    arm: str,
    metric: str | None = None,
    by: Sequence[str] = ("task", "size", "encoder"),
) -> dict[tuple, Scores]:
    """Scores of one arm of a study by cell and draw: ``{(task, size, encoder): {(split seed, seed): score}}``.

    Raises ``StudyError`` when one draw has two runs in a cell.
    """
    return {place: _values(runs, metric) for place, runs in _runs(records, arm, tuple(by)).items()}


def _cells(records: Iterable[Record], arms: tuple[str, str], by: tuple[str, ...]):
    records = list(records)
    first, second = (_runs(records, arm, by) for arm in arms)
    if "encoder" in by:
        first, second = _at_encoders_of(first, second, by.index("encoder"))
    return {place: (first[place], second[place]) for place in first if place in second}


def _at_encoders_of(first: dict, second: dict, at: int) -> tuple[dict, dict]:
    """An arm that brings one encoder of its own stands beside every encoder of the other arm."""
    ours, theirs = ({place[at] for place in runs} for runs in (first, second))
    if not ours & theirs and min(len(ours), len(theirs)) == 1:
        if len(ours) == 1:
            first = _spread(first, theirs, at)
        else:
            second = _spread(second, ours, at)
    return first, second


def _spread(runs: dict, encoders: Iterable[str], at: int) -> dict:
    return {(*p[:at], encoder, *p[at + 1 :]): draws for encoder in sorted(encoders) for p, draws in runs.items()}


def _runs(records: Iterable[Record], arm: str, by: tuple[str, ...]) -> dict[tuple, dict[Draw, Record]]:
    found: dict[tuple, dict[Draw, Record]] = defaultdict(dict)
    for record in records:
        study = getattr(record, "study", None)
        if record.status != "finished" or not study or study["stage"] != "final" or study["arm"] != arm:
            continue
        place = tuple(_field(record, name) for name in by)
        draw = record.run["split_seed"], record.run["seed"]
        other = found[place].setdefault(draw, record)
        if other is not record and _asked(other) != _asked(record):
            raise StudyError(
                f"arm {arm!r} has two different runs for draw {draw} in cell {place}; keep the records of one study "
                "or part, or add the field in which they differ to `by`"
            )
    return found


def _asked(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.run.items() if name not in ELSEWHERE}


def _field(record: Record, name: str) -> Any:
    if name in ("task", "encoder"):
        return getattr(record, name)["name"]
    if name == "size" and record.run.get("size") is None:
        return record.rows["train"] + record.rows["validation"]
    return record.study[name] if name in ("part", "name") else record.run.get(name)


def _values(runs: Mapping[Draw, Record], name: str | None) -> Scores:
    values = {draw: metric.value(record, name) for draw, record in runs.items()}
    return {draw: value for draw, value in values.items() if value is not None and math.isfinite(value)}


def _compare(cell, arms, first, second, name, margin, level, seed) -> Comparison:
    one, two = _values(first, name), _values(second, name)
    draws = common(one, two)
    notes = []
    missing = len(set(first) | set(second)) - len(draws)
    if missing:
        notes.append(f"{missing} of {missing + len(draws)} draws left out, where an arm has no score")
    full = metric.full_name(next(iter(first.values())), name)
    better_larger = metric.larger_is_better(full)
    ours, theirs = (np.array([values[draw] for draw in draws]) for values in (one, two))
    rows = _row_differences([first[d] for d in draws], [second[d] for d in draws], name)
    if isinstance(rows, str):
        notes.append(rows)
        rows = None
    mean = mean_of_draws(ours - theirs) if rows is None else mean_of_rows(ours - theirs, rows)
    low, high, said = _verdict(mean, rows, level, margin, better_larger, notes)
    sign = 1 if better_larger else -1
    chance, chances = aggregate.probability_of_improvement(sign * (ours - theirs), level)
    return Comparison(
        task=cell.get("task"),
        size=cell.get("size"),
        encoder=cell.get("encoder"),
        arm=arms[0],
        baseline=arms[1],
        metric=full,
        k=len(draws),
        draws=tuple(draws),
        differences=ours - theirs,
        scores_arm=ours,
        scores_baseline=theirs,
        mean=mean.value,
        low=low,
        high=high,
        seed_se=mean.seed_se,
        row_se=mean.row_se,
        bca=resample.bca(ours - theirs, level, seed=seed),
        bootstrap=resample.percentile(ours - theirs, level, seed=seed),
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
        cell=cell,
    )


def _verdict(mean: Mean, rows, level, margin, better_larger, notes: list[str]) -> tuple[float, float, str]:
    if mean.has_spread:
        low, high = mean.interval(level)
        return low, high, verdict(low, high, margin, better_larger)
    if mean.seed_df < 1:
        notes.append("fewer than two draws in common, so no spread can be estimated")
        return math.nan, math.nan, "cannot tell"
    if rows is not None and not rows.any():
        notes.append("both arms gave every test row the same score in every draw")
        return 0.0, 0.0, "equivalent"
    notes.append("the difference is the same in every draw, so no spread can be estimated")
    return math.nan, math.nan, "cannot tell"


def _row_differences(first: Sequence[Record], second: Sequence[Record], name: str | None) -> np.ndarray | str:
    """Arm minus baseline for each draw and test row, or in words why there is none."""
    from klnorm_lib.study.rows import decode

    entries = [[metric.rows(record, name) for record in arm] for arm in (first, second)]
    if not first or any(entry is None for arm in entries for entry in arm):
        return "no row scores: the error of the test rows is not included"
    scores = [[decode(entry) for entry in arm] for arm in entries]
    if len({len(values) for arm in scores for values in arm}) > 1:
        return "test rows differ from run to run: their error is not included"
    return np.stack(scores[0]) - np.stack(scores[1])
