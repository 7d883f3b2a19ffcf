"""The records of a study as outcomes: one arm in one setting, over its replicates, beside its baseline.

A setting is a task, a size and an encoder; a replicate is a split seed and a model seed.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from klnorm_lib.study import Record, stats
from klnorm_lib.study.stats import Comparison, compare, value

BASELINE = "plain"
SECOND = "plain_shared"  # plain at the rate that most arms chose, where tuning gave plain itself another one
HALVED = "uniform_05"  # half of the usual dropout at every site, for methods that lower the mean rate besides
SECONDS = (SECOND, HALVED)  # arms that stand beside the baseline as a second one
MACHINERY = ("smoke",)  # studies that try the engine, on runs too short to say anything of a method
TEST = "test"
SETTING = ("task", "size", "encoder")


@dataclass(frozen=True, eq=False)
class Outcome:
    """One arm in one setting, tested on one set: its finished final runs in order of replicates, and what they say.

    ``split``: ``test`` or ``ood/NAME``; ``runs``: finished final runs, ``failed``: those that failed; ``against``: the
    comparison with the study's baseline in this setting, or ``None`` for the baseline itself and where there is none.
    ``part`` is named only where parts of a study have to be distinguished. ``second``: the comparison with a second
    baseline, where a study has one: plain at the learning rate that most arms chose, or plain with half the dropout.
    """

    study: str
    part: str | None
    task: str
    size: int
    encoder: str
    arm: str
    label: str
    split: str
    metric: str
    runs: tuple[Record, ...]
    failed: tuple[Record, ...]
    against: Comparison | None
    second: Comparison | None = None

    @cached_property
    def scores(self) -> tuple[float | None, ...]:
        """The score of each run, in their order; ``None`` where the metric is undefined."""
        return tuple(value(record, self._metric) for record in self.runs)

    @property
    def replicates(self) -> tuple[tuple[int, int], ...]:
        """Split seed and seed of each run, in their order."""
        return tuple(map(_replicate, self.runs))

    @property
    def mean(self) -> float | None:
        """Mean score over the replicates."""
        return statistics.fmean(self._defined) if self._defined else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of the score over the replicates (n - 1); ``None`` for fewer than two."""
        return statistics.stdev(self._defined) if len(self._defined) > 1 else None

    @property
    def seconds(self) -> float | None:
        """Median time of a run, seconds, loading and tests included, on whatever machine it ran."""
        times = [s for r in self.runs if (s := r.time.get("total_seconds")) is not None]
        return statistics.median(times) if times else None

    @property
    def added_parameters(self) -> int | None:
        """Parameters that the method adds to the model."""
        return self.runs[0].method["added_parameters"] if self.runs else None

    @property
    def trial(self) -> str:
        """The hyperparameters chosen for this arm here, and out of how many trials."""
        study = self.runs[0].study if self.runs else self.failed[0].study
        chosen = ", ".join(f"{name} {_short(v)}" for name, v in study["trial"].items())
        return f"{chosen}; of {study['trials']} trials" if study["trials"] > 1 and chosen else chosen

    @property
    def name(self) -> str:
        """A name of its own among all outcomes, fit for an address."""
        words = [self.study, self.part, self.task, str(self.size), self.encoder, self.arm]
        words += [self.split.removeprefix("ood/")] if self.split != TEST else []
        words += [self.against.encoder] if self.against and self.against.encoder != self.encoder else []
        return "".join(c if c.isalnum() or c in "-_." else "_" for c in "-".join(filter(None, words)))

    @property
    def _defined(self) -> list[float]:
        return [score for score in self.scores if score is not None]

    @property
    def _metric(self) -> str:
        return self.metric if self.split == TEST else f"{self.split}/{self.metric}"


def _short(option: Any) -> str:
    return f"{option:g}" if isinstance(option, float) else str(option)


def _replicate(record: Record) -> tuple[int, int]:
    return record.run["split_seed"], record.run["seed"]


def outcomes(records: Iterable[Record], study: str, baseline: str | None = None) -> list[Outcome]:
    """Every outcome of a study, on the test rows and on each out-of-domain set, in order of first appearance.

    Tuning runs are no results and are left out. ``baseline``: the arm that the others are compared with, if not
    ``plain`` or, where there is none of that name, the first arm without a method. Parts of a study stand apart only
    where one replicate of an arm has different runs in them. A run that two arms share is in the outcomes of both.
    """
    records = [record for record in records if record.study and record.study["stage"] == "final"]
    arms = list(dict.fromkeys(r.study["arm"] for r in records))
    other = next((arm for arm in SECONDS if arm in arms), None) if baseline is None else None
    if baseline is None:
        bare = [r.study["arm"] for r in records if r.method["name"] == BASELINE]
        baseline = BASELINE if BASELINE in arms else next(iter(bare), None)
    by = ("part", *SETTING) if _parts_differ(records) else SETTING
    groups: dict[tuple, list[Record]] = defaultdict(list)
    for record in records:
        groups[(*_setting(record, by), record.study["arm"])].append(record)
    found = []
    for split in dict.fromkeys(name for r in records for name in (TEST, *(f"ood/{o}" for o in r.ood))):
        against = {arm: _against(records, arm, baseline, split, by) for arm in arms if arm != baseline}
        seconds = {arm: _against(records, arm, other, split, by) for arm in arms if arm not in (baseline, other)}
        for (*values, arm), runs in groups.items():
            tested = {r.hash: r for r in runs if r.status == "finished" and _has(r, split)}
            done = sorted(tested.values(), key=_replicate)
            failed = tuple(r for r in runs if r.status == "failed") if split == TEST else ()
            if done or failed:
                first, named = (done or failed)[0], dict(zip(by, values, strict=True))
                where = (study, named.get("part"), *(named[n] for n in SETTING), arm, first.study["label"], split)
                second = _beside(seconds.get(arm, []), named)[0]
                for comparison in _beside(against.get(arm, []), named):
                    found.append(Outcome(*where, first.task["primary_metric"], tuple(done), failed, comparison, second))
    return found


def _setting(record: Record, by: tuple[str, ...]) -> tuple:
    size = record.run["size"] or sum(record.rows.get(split, 0) for split in ("train", "validation"))
    fields = {"part": record.study["part"], "task": record.task["name"], "size": size}
    return tuple({**fields, "encoder": record.encoder["name"]}[name] for name in by)


def _parts_differ(records: Iterable[Record]) -> bool:
    """Whether one replicate of an arm in one setting has two runs, which only parts of a study can tell apart."""
    hashes: dict[tuple, str] = {}
    return any(
        hashes.setdefault((*_setting(r, SETTING), r.study["arm"], _replicate(r)), r.hash) != r.hash
        for r in records
        if r.status == "finished"
    )


def _has(record: Record, split: str) -> bool:
    return split == TEST or split.removeprefix("ood/") in record.ood


def _against(records: list[Record], arm: str, baseline: str | None, split: str, by: tuple[str, ...]):
    if baseline is None:
        return []
    tested = [r for r in records if _has(r, split)]
    try:
        return compare(tested, arm, baseline, None if split == TEST else split, by)
    except LookupError:  # no setting has both
        return []


def _beside(comparisons: Iterable[Comparison], setting: Mapping[str, Any]) -> list[Comparison | None]:
    """The comparisons that belong to a setting: one, or one for each encoder of the baseline if the arm has its own."""
    here = [c for c in comparisons if all(c.setting[name] == setting[name] for name in setting if name != "encoder")]
    return [c for c in here if c.encoder == setting["encoder"]] or here or [None]


def over_settings(found: Sequence[Outcome]) -> tuple[float, float, float]:
    """Mean of the differences to the baseline over settings of one arm, and its interval; NaN without any.

    See :func:`klnorm_lib.study.stats.over_settings`.
    """
    return stats.over_settings(c.against for c in found if c.against is not None)
