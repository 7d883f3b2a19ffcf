"""What an encoder's card claims: the encoder against its random twin and against the baseline, task by task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from klnorm_lib.encoders.sources import RANDOM
from klnorm_lib.report.card_plan import FINE_TUNED, FROZEN, PLANS, Plan
from klnorm_lib.report.paired import Scores, best_rate, differences, shared_rates, t_interval, verdict
from klnorm_lib.study import Record

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
        """``better``, ``worse`` or ``cannot tell``, see :func:`klnorm_lib.report.paired.verdict`."""
        return verdict(self.low, self.high)

    def __str__(self) -> str:
        return f"{self.change.mean():+.3f} [{self.low:+.3f}, {self.high:+.3f}] {self.verdict}"


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
    """One claim for each task of a plan, in its order.

    Fine-tuned arms stand at the learning rate with the best mean validation score among the rates that both were tried
    at; the baseline at the C that was best on validation, run by run. Raises ``LookupError`` naming a task and arm that
    the records lack.
    """
    pool = [r for r in records if r.status == "finished"]
    return [_claim(plan, task, sizes[0], pool) for task, sizes in plan.sizes.items()]


def _claim(plan: Plan, task: str, size: int, pool: list[Record]) -> Claim:
    def of(encoder: str, method: str) -> list[Record]:
        place = task, size, encoder, method
        found = [
            r
            for r in pool
            if (r.task["name"], r.run["size"], r.encoder["name"], r.method["name"]) == place and _planned(plan, r)
        ]
        if not found:
            raise LookupError(
                f"no packaged record of {encoder} with method {method} on {task} at {size} labels; run "
                f"python -m klnorm_lib.report.card_study for the plan of {plan.encoder}"
            )
        return found

    tuned, twin = shared_rates(of(plan.encoder, FINE_TUNED), of(plan.encoder + RANDOM, FINE_TUNED))
    arms = [_tuned(plan.encoder, tuned), _tuned(plan.encoder + RANDOM, twin)]
    for encoder, method in plan.arms:
        if method == FROZEN:
            arms.append(Arm(f"{encoder}, frozen", _scores(of(encoder, FROZEN)), "C by run"))
    others = [arms[1], next(arm for arm in arms[2:] if not arm.name.startswith(plan.encoder))]
    against = tuple(_against(arms[0], other) for other in others)
    return Claim(task, tuned[0].task["primary_metric"], size, task in plan.claims, tuple(arms), against)


def _planned(plan: Plan, record: Record) -> bool:
    """Whether a record has the settings of a plan; other studies use the same tasks and encoders."""
    asked = dict(plan.common) if record.method["name"] == FROZEN else {**plan.common, **plan.training}
    return all(record.run.get(name) == value for name, value in asked.items())


def _tuned(name: str, records: list[Record]) -> Arm:
    scores, rate, largest = best_rate(records)
    return Arm(name, scores, f"{rate:g}{' (largest tried)' if largest else ''}")


def _scores(records: list[Record]) -> Scores:
    return {(r.run["split_seed"], r.run["seed"]): r.test[r.task["primary_metric"]] for r in records}


def _against(first: Arm, other: Arm) -> Against:
    change = differences(first.scores, other.scores)
    return Against(other.name, change, *t_interval(change))


def claims_table(found: list[Claim]) -> str:
    """The claims as a markdown table, and in words below it."""
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
            + [str(other) for other in claim.against]
        )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{in_words(found)}\n"


def in_words(found: list[Claim]) -> str:
    """Whether the claim holds, on how many tasks, and where and why not."""
    asked = [claim for claim in found if claim.claimed]
    holding = [claim for claim in asked if claim.holds]
    above = [claim for claim in asked if all(other.change.mean() > 0 for other in claim.against)]
    others = " and ".join(other.name for other in asked[0].against)
    told = [
        f"**Better than {others}**, both intervals above zero: on {len(holding)} of {len(asked)} tasks. By the mean "
        f"alone: on {len(above)} of {len(asked)}. We asked for {PASSES}: "
        f"{_met(len(holding), len(above))}."
    ]
    for claim in asked:
        if not claim.holds:
            why = [f"{_WORDS[o.verdict]} {o.name}" for o in claim.against if o.verdict != "better"]
            told.append(f"On {claim.task} it does not hold: {' and '.join(why)}.")
    return " ".join(told)


_WORDS = {"worse": "it is worse than", "cannot tell": "we cannot tell it from"}


def _met(holding: int, above: int) -> str:
    if holding >= PASSES:
        return "the claim holds"
    if above >= PASSES:
        return "the claim holds by the mean only, and so few seeds cannot make sure of it"
    return "the claim does not hold"


def ladder_table(plan: Plan, records: Iterable[Record]) -> str:
    """Mean test score of every frozen arm of a plan, by task and size, as a markdown table; the best in bold.

    The last column is the plan's encoder minus the first arm, paired by seed, with its 95 % interval.
    Raises ``LookupError`` naming what the records lack.
    """
    names = [encoder for encoder, _ in plan.arms]
    cells = ladder(plan, records)
    lines = [["task", "labels", *(n.split("/")[-1] for n in names), f"{plan.encoder} minus {names[0]}"]]
    lines.append([":--", "--:", *["--:"] * len(names), ":--"])
    for (task, metric, size), arms in cells.items():
        means = {name: float(np.mean(list(arms[name].values()))) for name in names}
        best = max(means.values())
        shown = [f"**{m:.3f}**" if m == best else f"{m:.3f}" for m in means.values()]
        change = differences(arms[plan.encoder], arms[names[0]])
        low, high = t_interval(change)
        title = f"{task}{'' if metric == 'accuracy' else f' ({metric})'}"
        lines.append([title, str(size), *shown, f"{change.mean():+.3f} [{low:+.3f}, {high:+.3f}]"])
    for size in sorted({size for _, _, size in cells}):
        at = [arms for (_, _, s), arms in cells.items() if s == size]
        means = [np.mean([np.mean(list(arms[name].values())) for arms in at]) for name in names]
        lines.append([f"mean of {len(at)} tasks", str(size), *(f"{m:.3f}" for m in means), ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def ladder(plan: Plan, records: Iterable[Record]) -> dict[tuple[str, str, int], dict[str, Scores]]:
    """Test scores of the frozen arms of a plan: (task, metric, size) to encoder to scores by seed."""
    pool: dict[tuple, list[Record]] = {}
    for r in records:
        if r.status == "finished" and r.method["name"] == FROZEN and _planned(plan, r):
            pool.setdefault((r.task["name"], r.run["size"], r.encoder["name"]), []).append(r)
    cells = {}
    for task, sizes in plan.sizes.items():
        for size in sizes:
            missing = [encoder for encoder, _ in plan.arms if (task, size, encoder) not in pool]
            if missing:
                raise LookupError(
                    f"no packaged record of {', '.join(missing)} with method frozen on {task} at {size} labels; run "
                    "python -m klnorm_lib.report.card_study text-table"
                )
            found = {encoder: pool[task, size, encoder] for encoder, _ in plan.arms}
            metric = found[plan.encoder][0].task["primary_metric"]
            cells[task, metric, size] = {encoder: _scores(rs) for encoder, rs in found.items()}
    return cells


def plans_of(name: str) -> tuple[Plan | None, Plan | None]:
    """The plan of the claims of an encoder's card, and that of its table; ``None`` where it has none."""
    of = [plan for plan in PLANS.values() if plan.encoder == name]
    return next((p for p in of if p.claims), None), next((p for p in of if not p.claims), None)
