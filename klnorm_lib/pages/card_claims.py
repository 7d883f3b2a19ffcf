"""What an encoder's card claims: the encoder against its random twin and against the baseline, task by task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from klnorm_lib.encoders.sources import RANDOM
from klnorm_lib.pages.card_plan import FINE_TUNED, FROZEN, PLANS, Plan
from klnorm_lib.study import Record, Run
from klnorm_lib.study.stats import Scores, best_rate, differences, shared_rates, t_interval, verdict

Ladder = dict[tuple[str, str, int], dict[str, Scores]]
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

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``cannot tell``, see :func:`klnorm_lib.study.stats.verdict`."""
        return verdict(self.low, self.high)

    def __str__(self) -> str:
        return f"{self.change.mean():+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True)
class Claim:
    """One task of a card: the arms, and the encoder against its twin and against the baseline."""

    task: str
    metric: str
    labels: int
    claimed: bool
    arms: tuple[Arm, ...]
    against: tuple[Against, ...]

    @property
    def holds(self) -> bool:
        """Whether both intervals lie above zero."""
        return all(other.verdict == "better" for other in self.against)


def claims(plan: Plan, records: Iterable[Record]) -> list[Claim]:
    """One claim for each task of a plan whose runs are all recorded, in the plan's order.

    Fine-tuned arms stand at the learning rate with the best mean validation score among the rates that both were tried
    at with every seed; the baseline at the C that was best on validation, run by run.
    """
    cells: dict[tuple, list[Record]] = defaultdict(list)
    for r in records:
        if _planned(plan, r):
            cells[r.task["name"], r.run["size"], r.encoder["name"], r.method["name"]].append(r)
    found = []
    for task, (size, *_) in plan.sizes.items():
        runs = {arm: cells[(task, size, *arm)] for arm in plan.arms}
        if all(_complete(plan, arm, members) for arm, members in runs.items()):
            found.append(_claim(plan, task, size, runs))
    return found


def _complete(plan: Plan, arm: tuple[str, str], records: list[Record]) -> bool:
    """Whether every run of an arm was carried out; one that failed was carried out too, but its rate is out."""
    rates = {None} if arm[1] == FROZEN else set(plan.rates)
    done = {(None if arm[1] == FROZEN else r.run["learning_rate"], r.run["seed"]) for r in records}
    return done >= {(rate, seed) for rate in rates for seed in range(plan.seeds)}


def _claim(plan: Plan, task: str, size: int, runs: dict[tuple[str, str], list[Record]]) -> Claim:
    finished = {arm: _with_every_seed(plan, members) for arm, members in runs.items()}
    twin = (plan.encoder + RANDOM, FINE_TUNED)
    pair = shared_rates(finished[plan.encoder, FINE_TUNED], finished[twin])
    arms = [_tuned(encoder, members) for encoder, members in zip((plan.encoder, twin[0]), pair, strict=True)]
    for encoder, method in plan.arms:
        if method == FROZEN:
            arms.append(Arm(f"{encoder}, frozen", _scores(finished[encoder, method]), "C by run"))
    others = [arms[1], next(arm for arm in arms[2:] if not arm.name.startswith(plan.encoder))]
    against = tuple(_against(arms[0], other) for other in others)
    return Claim(task, pair[0][0].task["primary_metric"], size, task in plan.claims, tuple(arms), against)


def _with_every_seed(plan: Plan, records: list[Record]) -> list[Record]:
    by_rate: dict[float, list[Record]] = defaultdict(list)
    for r in records:
        if r.status == "finished":
            by_rate[r.run["learning_rate"]].append(r)
    return [r for members in by_rate.values() if len({m.run["seed"] for m in members}) == plan.seeds for r in members]


def _planned(plan: Plan, record: Record) -> bool:
    """Whether a record has the settings of a plan; other studies use the same tasks and encoders."""
    asked = dict(plan.common) if record.method["name"] == FROZEN else {**plan.common, **plan.training}
    return all(record.run.get(name, getattr(Run, name)) == value for name, value in asked.items())


def _tuned(name: str, records: list[Record]) -> Arm:
    scores, rate, largest = best_rate(records)
    return Arm(name, scores, f"{rate:g}{' (largest tried)' if largest else ''}")


def _scores(records: list[Record]) -> Scores:
    return {(r.run["split_seed"], r.run["seed"]): r.test[r.task["primary_metric"]] for r in records}


def _against(first: Arm, other: Arm) -> Against:
    change = differences(first.scores, other.scores)
    return Against(other.name, change, *t_interval(change))


def claims_table(plan: Plan, found: list[Claim]) -> str:
    """The claims as a markdown table, and in words below it."""
    if not found:
        return f"{in_words(plan, found)}\n"
    names = [arm.name for arm in found[0].arms]
    others = [other.name for other in found[0].against]
    head = ["task", "labels", "seeds", *names, *(f"minus {name}" for name in others)]
    lines = [head, [":--", "--:", "--:", *["--:"] * len(names), *[":--"] * len(others)]]
    for claim in found:
        means = [f"{arm.mean:.3f}{'' if arm.chosen == 'C by run' else f' at {arm.chosen}'}" for arm in claim.arms]
        title = f"{claim.task}{'' if claim.metric == 'accuracy' else f' ({claim.metric})'}"
        seeds = len(claim.against[0].change)
        lines.append(
            [f"{title}{'' if claim.claimed else ' (beside)'}", f"{claim.labels}", f"{seeds}", *means]
            + [f"{other} {other.verdict}" for other in claim.against]
        )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{in_words(plan, found)}\n\n{settings(plan)}\n"


def settings(plan: Plan) -> str:
    """How the arms of a plan were trained and tested, in a sentence."""
    told = [f"{plan.training['steps']} steps of {plan.training['batch_size']} rows"]
    told.append(f"learning rates {', '.join(f'{rate:g}' for rate in plan.rates)}")
    if "max_seconds" in plan.common:
        told.append(f"of every clip at most the first {plan.common['max_seconds']:g} seconds, in every arm")
    if "max_length" in plan.common:
        told.append(f"at most {plan.common['max_length']} tokens a text")
    if "test_rows" in plan.common:
        told.append(f"tested on at most {plan.common['test_rows']:,} rows, a fixed stratified sample")
    return f"Settings: {'; '.join(told)}."


def in_words(plan: Plan, found: list[Claim]) -> str:
    """Whether the claim holds, on how many of the plan's tasks, and where and why not."""
    asked = [claim for claim in found if claim.claimed]
    if not asked:
        return NONE
    holding = [claim for claim in asked if claim.holds]
    above = [claim for claim in asked if all(other.change.mean() > 0 for other in claim.against)]
    others = " and ".join(other.name for other in asked[0].against)
    told = [
        f"**Better than {others}**, both intervals above zero: on {len(holding)} of {len(plan.claims)} tasks. By the "
        f"mean alone: on {len(above)} of {len(plan.claims)}. We asked for {PASSES}: "
        f"{_met(len(holding), len(above), len(plan.claims) - len(asked))}."
    ]
    for claim in asked:
        if not claim.holds:
            why = [f"{_WORDS[o.verdict]} {o.name}" for o in claim.against if o.verdict != "better"]
            told.append(f"On {claim.task} it does not hold: {' and '.join(why)}.")
    missing = [task for task in plan.sizes if task not in {claim.task for claim in found}]
    if missing:
        told.append(f"Not measured yet: {', '.join(missing)}.")
    return " ".join(told)


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


def ladder_table(plan: Plan, records: Iterable[Record]) -> str:
    """Mean test score of every frozen arm of a plan, by task and size, as a markdown table; the best in bold.

    The last column is the plan's encoder minus the first arm, paired by seed, with its 95 % interval.
    """
    names = [encoder for encoder, _ in plan.arms]
    cells = ladder(plan, records)
    if not cells:
        return f"{NONE}\n"
    lines = [["task", "labels", *(n.split("/")[-1] for n in names), f"{plan.encoder} minus {names[0]}"]]
    lines.append([":--", "--:", *["--:"] * len(names), ":--"])
    for (task, metric, size), arms in cells.items():
        means = {name: float(np.mean(list(arms[name].values()))) for name in names}
        best = max(means.values())
        shown = [f"**{m:.3f}**" if m == best else f"{m:.3f}" for m in means.values()]
        other = _against(Arm(plan.encoder, arms[plan.encoder], ""), Arm(names[0], arms[names[0]], ""))
        title = f"{task}{'' if metric == 'accuracy' else f' ({metric})'}"
        lines.append([title, str(size), *shown, str(other)])
    for size, means in mean_of_tasks(cells).items():
        count = len({task for task, _, s in cells if s == size})
        lines.append([f"mean of {count} tasks", str(size), *(f"{means[name]:.3f}" for name in names), ""])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    missing = [t for t in plan.sizes if any((t, s) not in {(c[0], c[2]) for c in cells} for s in plan.sizes[t])]
    return table + (f"\n\nNot measured yet, or not at every size: {', '.join(missing)}.\n" if missing else "\n")


def mean_of_tasks(cells: Ladder) -> dict[int, dict[str, float]]:
    """Size to encoder to the mean over tasks of the mean over seeds."""
    names = list(next(iter(cells.values())))
    result = {}
    for size in sorted({size for _, _, size in cells}):
        at = [arms for (_, _, s), arms in cells.items() if s == size]
        result[size] = {n: float(np.mean([np.mean(list(arms[n].values())) for arms in at])) for n in names}
    return result


def ladder(plan: Plan, records: Iterable[Record]) -> Ladder:
    """Test scores of the frozen arms of a plan: (task, metric, size) to encoder to scores by seed.

    Tasks and sizes of which an arm lacks a seed are left out.
    """
    pool: dict[tuple, list[Record]] = defaultdict(list)
    for r in records:
        if r.status == "finished" and r.method["name"] == FROZEN and _planned(plan, r):
            pool[r.task["name"], r.run["size"], r.encoder["name"]].append(r)
    cells: Ladder = {}
    for task, sizes in plan.sizes.items():
        for size in sizes:
            found = {encoder: pool[task, size, encoder] for encoder, _ in plan.arms}
            if all(_complete(plan, arm, found[arm[0]]) for arm in plan.arms):
                metric = found[plan.encoder][0].task["primary_metric"]
                cells[task, metric, size] = {encoder: _scores(rs) for encoder, rs in found.items()}
    return cells


def plans_of(name: str) -> tuple[Plan | None, Plan | None]:
    """The plan of the claims of an encoder's card, and that of its table; ``None`` where it has none."""
    of = [plan for plan in PLANS.values() if plan.encoder == name]
    return next((p for p in of if p.claims), None), next((p for p in of if not p.claims), None)
