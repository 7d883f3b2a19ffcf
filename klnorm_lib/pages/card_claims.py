"""What an encoder's card claims: the encoder against its randomly initialised counterpart and the baseline, by task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from klnorm_lib.study import Record
from klnorm_lib.study.fit_protocol import fit_of
from klnorm_lib.study.stats import Scores, differences, t_interval, verdict
from klnorm_lib.sweep.design import Grid

Members = dict[tuple[str, int, str, str], list[Record]]
CLAIMS = {"klnorm-tiny": "klnorm_tiny", "klnorm-tiny-speech": "klnorm_tiny_speech"}  # encoder: study of its claim
PASSES = 4  # tasks out of five on which an encoder has to beat both, to earn its place


@dataclass(frozen=True)
class Arm:
    """One arm on one task: its name, test scores by (split seed, seed), and what was chosen for it."""

    name: str
    scores: Scores
    chosen: str

    @property
    def mean(self) -> float:
        """Mean test score over the seeds."""
        return float(np.mean(list(self.scores.values())))


@dataclass(frozen=True)
class Against:
    """The encoder minus one other arm: a difference for each seed, the 95 % interval of their mean, and a verdict."""

    name: str
    change: np.ndarray
    low: float
    high: float

    @classmethod
    def of(cls, ours: Scores, name: str, theirs: Scores) -> Against:
        """Our scores minus those of the other arm, paired by seed."""
        change = differences(ours, theirs)
        return cls(name, change, *t_interval(change))

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``cannot tell``, see :func:`klnorm_lib.study.stats.verdict`."""
        return verdict(self.low, self.high)

    def __str__(self) -> str:
        return f"{self.change.mean():+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True)
class Claim:
    """One task of a card: the arms, and the encoder against its counterpart and against the baseline."""

    task: str
    metric: str
    labels: int
    arms: tuple[Arm, ...]
    against: tuple[Against, ...]

    @property
    def holds(self) -> bool:
        """Whether both intervals lie above zero."""
        return all(other.verdict == "better" for other in self.against)


def claims(grid: Grid, records: Iterable[Record]) -> list[Claim]:
    """One claim for each task of a study whose reported runs are all among its ``records``, in the study's order.

    The study compares an encoder, its first one, with its randomly initialised counterpart, both fine-tuned, and with
    frozen features.
    """
    ours, members = next(iter(grid.parts.values())).encoders[0], final(records)
    found = []
    for task, size in settings_of(grid):
        wanted = arms_of(grid, task, size)
        if all(complete(members[key], replicates) for key, replicates in wanted):
            arms = [_arm(members[key]) for key, _ in wanted]
            baseline = next(arm for arm in arms[2:] if not arm.name.startswith(ours))
            against = tuple(Against.of(arms[0].scores, other.name, other.scores) for other in (arms[1], baseline))
            metric = members[wanted[0][0]][0].task["primary_metric"]
            found.append(Claim(task, metric, size, tuple(arms), against))
    return found


def final(records: Iterable[Record]) -> Members:
    """The finished final runs by task, size, encoder and arm."""
    members: Members = defaultdict(list)
    for r in records:
        if r.status == "finished" and r.study and r.study["stage"] == "final":
            members[r.task["name"], r.run["size"], r.encoder["name"], r.study["arm"]].append(r)
    return members


def settings_of(grid: Grid) -> list[tuple[str, int]]:
    """Task and size, in the order of the study."""
    return list(dict.fromkeys((t, s) for part in grid.parts.values() for t, sizes in part.tasks.items() for s in sizes))


def arms_of(grid: Grid, task: str, size: int) -> list[tuple[tuple[str, int, str, str], Sequence[tuple[int, int]]]]:
    """Task, size, encoder and arm of every row that a study has there, and its replicates."""
    return [
        ((task, size, encoder, arm), part.replicates)
        for part in grid.parts.values()
        if size in part.tasks.get(task, ())
        for encoder in part.encoders
        for arm in part.arms
    ]


def complete(records: Sequence[Record], replicates: Sequence[tuple[int, int]]) -> bool:
    """Whether there is a record of every replicate, and of no other."""
    return {(r.run["split_seed"], r.run["seed"]) for r in records} == set(replicates)


def _arm(records: Sequence[Record]) -> Arm:
    first = records[0]
    name, method = first.encoder["name"], first.method["name"]
    if not fit_of(method).takes_steps:
        return Arm(f"{name}, {method}", scores(records), "C by run")
    return Arm(name, scores(records), chosen_rate(first))


def chosen_rate(record: Record) -> str:
    """The learning rate of a tuned arm, and whether it is the largest tried, where a larger one might do better."""
    rate = record.study["trial"]["learning_rate"]
    largest = rate == max(trial["learning_rate"] for trial in record.study["grid"])
    return f"{rate:g}{' (largest tried)' if largest else ''}"


def scores(records: Iterable[Record]) -> Scores:
    """Test scores by split seed and seed."""
    return {(r.run["split_seed"], r.run["seed"]): r.test[r.task["primary_metric"]] for r in records}


def claims_table(grid: Grid, found: list[Claim]) -> str:
    """The claims as a markdown table, and in words below it."""
    if not found:
        return f"{NONE}\n"
    names = [arm.name for arm in found[0].arms]
    others = [other.name for other in found[0].against]
    head = ["task", "labels", "seeds", *names, *(f"minus {name}" for name in others)]
    lines = [head, [":--", "--:", "--:", *["--:"] * len(names), *[":--"] * len(others)]]
    for claim in found:
        means = [f"{arm.mean:.3f}{'' if arm.chosen == 'C by run' else f' at {arm.chosen}'}" for arm in claim.arms]
        title = f"{claim.task}{'' if claim.metric == 'accuracy' else f' ({claim.metric})'}"
        seeds = len(claim.against[0].change)
        lines.append(
            [title, f"{claim.labels}", f"{seeds}", *means] + [f"{other} {other.verdict}" for other in claim.against]
        )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{in_words(grid, found)}\n\n{settings(grid)}\n"


def settings(grid: Grid) -> str:
    """How the arms of a study were trained and tested, in a sentence."""
    common = next(iter(grid.parts.values())).common
    rates = next(arm.trials for arm in grid.arms.values() if len(arm.trials) > 1)
    text = [f"{common['steps']} steps of {common['batch_size']} rows"]
    text.append(f"learning rates {', '.join(format(trial['learning_rate'], 'g') for trial in rates)}")
    if "max_seconds" in common:
        text.append(f"of every clip at most the first {common['max_seconds']:g} seconds, in every arm")
    if "max_length" in common:
        text.append(f"at most {common['max_length']} tokens a text")
    if "test_rows" in common:
        text.append(f"tested on at most {common['test_rows']:,} rows, a fixed stratified sample")
    return f"Settings: {'; '.join(text)}."


def in_words(grid: Grid, found: list[Claim]) -> str:
    """Whether the claim holds, on how many of the study's tasks, and where and why not."""
    if not found:
        return NONE
    tasks = list(dict.fromkeys(task for task, _ in settings_of(grid)))
    holding = [claim for claim in found if claim.holds]
    above = [claim for claim in found if all(other.change.mean() > 0 for other in claim.against)]
    others = " and ".join(other.name for other in found[0].against)
    text = [
        f"**Better than {others}**, both intervals above zero: on {len(holding)} of {len(tasks)} tasks. By the "
        f"mean alone: on {len(above)} of {len(tasks)}. We asked for {PASSES}: "
        f"{_met(len(holding), len(above), len(tasks) - len(found))}."
    ]
    for claim in found:
        if not claim.holds:
            why = [f"{_WORDS[o.verdict]} {o.name}" for o in claim.against if o.verdict != "better"]
            text.append(f"On {claim.task} it does not hold: {' and '.join(why)}.")
    missing = [task for task in tasks if task not in {claim.task for claim in found}]
    if missing:
        text.append(f"Not measured yet: {', '.join(missing)}.")
    return " ".join(text)


NONE = "This comparison has not been recorded yet, so this card claims nothing about it."
_WORDS = {"worse": "it is worse than", "cannot tell": "we cannot tell it from"}


def _met(holding: int, above: int, unknown: int) -> str:
    if holding >= PASSES:
        return "the claim holds"
    if holding + unknown >= PASSES:
        return "that is not decided yet"
    if above >= PASSES:
        return "the claim holds by the mean only, and so few seeds cannot make sure of it"
    return "the claim does not hold"
