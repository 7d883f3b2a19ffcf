"""Accuracy against cost: what each arm of a study gains on its baseline, and what it takes for it."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from klnorm_lib.figures import style
from klnorm_lib.pages import cost
from klnorm_lib.pages.card_figures import as_html
from klnorm_lib.pages.cells import SECONDS, TEST, Cell, over_places
from klnorm_lib.studies import path

FEWEST = 4  # arms, below which a plot says no more than the table
STEPS = 3  # arms whose step was measured, below which its panel is left out
PLACES = 2  # places, below which the mean over them is a single cell
UNITS = {"nll", "mse"}  # metrics that are no shares


@dataclass(frozen=True)
class Arm:
    """One arm over all places that every arm of a study has: its gain with an interval, and its cost.

    ``gain``, ``low``, ``high``: mean difference to the baseline, hundredths; ``time``: seconds of a run over those of
    the baseline, geometric mean over places; ``added``: parameters that the method adds, mean over places; ``step``:
    time of a training step over the baseline's, from the packaged measurement of cost, NaN where that has none;
    ``baseline``: whether it is one, the study's own or a second one.
    """

    label: str
    gain: float
    low: float
    high: float
    time: float
    added: float
    step: float = math.nan
    baseline: bool = False


def arms(found: Iterable[Cell]) -> tuple[list[Arm], list[tuple[str, int, str]]]:
    """The arms of a study on its test rows, the baseline first, in the places (task, size, encoder) with most arms.

    There are two such places at least; arms that one of them lacks are left out. Where parts of the study have to be
    told apart, the one with most cells is taken. Both lists are empty for fewer than two places or four arms.
    """
    found = list(found)
    largest = Counter(c.part for c in found).most_common(1)[0][0] if found else None
    found = [c for c in found if c.part == largest]
    by_arm: dict[str, dict[tuple, Cell]] = defaultdict(dict)
    base: dict[tuple, Cell] = {}
    for c in found:
        place = (c.task, c.size, c.against.encoder if c.against else c.encoder)
        if c.split != TEST or c.metric in UNITS or c.mean is None:
            continue
        if c.against is None:
            base[place] = c
        elif math.isfinite(c.against.low):
            by_arm[c.arm][place] = c
    counts = {place: sum(place in of for of in by_arm.values()) for place in base}
    enough = sorted(counts.values(), reverse=True)[PLACES - 1 : PLACES]  # as many arms as PLACES places have at least
    places = [place for place in base if by_arm and enough and counts[place] >= enough[0]]
    by_arm = {name: of for name, of in by_arm.items() if all(place in of for place in places)}
    if len(by_arm) + 1 < FEWEST or len(places) < PLACES:
        return [], []
    steps = _steps(places)
    first = base[places[0]]
    added = statistics.fmean(_added(base[p]) for p in places)
    shown = [Arm(first.label, 0.0, 0.0, 0.0, 1.0, added, 1.0 if steps else math.nan, True)]
    for name, of in by_arm.items():
        here = [of[p] for p in places]
        gain, low, high = (100 * v for v in over_places(here))
        ratios = [of[p].seconds / base[p].seconds for p in places if of[p].seconds and base[p].seconds]
        time = statistics.geometric_mean(ratios) if ratios else math.nan
        added, step = statistics.fmean(map(_added, here)), steps.get(name, math.nan)
        shown.append(Arm(here[0].label, gain, low, high, time, added, step, name in SECONDS))
    return shown, places


def _steps(places: Sequence[tuple[str, int, str]]) -> dict[str, float]:
    """Time of a step over that of plain training, by arm, if it was measured with the encoder of all places."""
    encoders = {encoder for *_, encoder in places}
    if len(encoders) > 1 or not path("cost.json").is_file():
        return {}
    models = [model for model in cost.read()["models"] if model["encoder"] in encoders]
    return {name: median for model in models[:1] for name, (median, *_) in cost.ratios(model).items()}


def _added(cell: Cell) -> int:
    return cell.added_parameters or 0


def shown(found: Iterable[Cell]) -> bool:
    """Whether a study has enough arms in enough common places for a plot."""
    return bool(arms(found)[0])


def sections(studies: Mapping[str, Sequence[Cell]]) -> list[str]:
    """A figure with its words for every study that has one, in markdown."""
    parts = []
    for name, found in studies.items():
        here, places = arms(found)
        if here:
            style.use()
            parts.append(as_html(draw(here), in_words(name, here, places), _caption(name, places)))
    return parts


def _caption(study: str, places: Sequence[tuple[str, int, str]]) -> str:
    where = ", ".join(f"{task} at {size}" for task, size, _ in places)
    encoders = ", ".join(dict.fromkeys(encoder for *_, encoder in places))
    return (
        f"Study {study}, mean over {where}, with {encoders}. Bars: 95 % intervals of the mean difference to the "
        "baseline, whose own point has none. Dotted: the baseline and, where the study has one, its second: plain at "
        "the learning rate that most arms chose, or with half the dropout. The dashed line joins arms that no other "
        "arm beats in both mean and cost; where intervals overlap it is no ranking."
    )


def in_words(study: str, here: Sequence[Arm], places: Sequence[tuple[str, int, str]]) -> str:
    """The figure for those who do not see it."""
    told = [
        f"{a.label}: {a.gain:+.1f} points [{a.low:+.1f}, {a.high:+.1f}], {a.time:.2f} times the time, "
        f"{a.added:,.0f} added parameters"
        for a in sorted(here, key=lambda a: -a.gain)
    ]
    count = len({task for task, *_ in places})
    return f"The gain against cost, study {study}, mean of {count} tasks. {'; '.join(told)}."


def draw(here: Sequence[Arm]):
    """Gain against each cost, a figure: every arm a labelled point with its interval.

    The costs are time of a run, added parameters and, where it was measured, time of a training step.
    """
    import matplotlib.pyplot as plt

    panels = {"time of a run, baseline = 1": [a.time for a in here], "added parameters": [a.added for a in here]}
    if sum(math.isfinite(a.step) for a in here) >= STEPS:
        panels["time of a training step, plain = 1 (chapter 11)"] = [a.step for a in here]
    height = max(2.8, 0.25 * len(here) + 0.9)
    fig, axes = plt.subplots(len(panels), 1, figsize=(6.4, height * len(panels)))
    for ax, (label, costs) in zip(axes, panels.items(), strict=True):
        _panel(ax, here, costs, label)
    return fig


def _panel(ax, here: Sequence[Arm], costs: Sequence[float], label: str) -> None:
    for level in (arm.gain for arm in here if arm.baseline):
        ax.axhline(level, color=style.INK, lw=1, ls=":")
    _scale(ax, [cost for cost in costs if math.isfinite(cost)])
    edge = sorted(_front(here, costs))
    ax.plot(*zip(*edge, strict=True), color=style.PALETTE[1], lw=1.2, ls="--", zorder=1)
    known = [i for i, cost in enumerate(costs) if math.isfinite(cost)]
    for i in known:
        ax.plot([costs[i], costs[i]], [here[i].low, here[i].high], color=style.PALETTE[0], lw=1.2, alpha=0.5)
        ax.plot(costs[i], here[i].gain, "o", color=style.PALETTE[0], ms=5)
    # Names stand in a column beside the plot, in the order of their points, so that none hides another.
    order = sorted(known, key=lambda i: (here[i].gain, -costs[i]))
    for at, i in enumerate(order):
        ax.annotate(
            here[i].label,
            (costs[i], here[i].gain),
            xytext=(1.06, (at + 0.5) / len(order)),
            textcoords="axes fraction",
            va="center",
            fontsize=style.FONT - 2,
            arrowprops={
                "arrowstyle": "-",
                "color": style.INK,
                "lw": 0.6,
                "alpha": 0.5,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 3,
            },
        )
    ax.set(xlabel=label, ylabel="minus baseline, points")


def _scale(ax, costs: Sequence[float]) -> None:
    """A linear axis for costs that are close to each other, else a logarithmic one, with a place for zero."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(c for c in [*costs, math.inf] if c > 0), max(costs)
    if min(costs) > 0 and high / low < 4:
        room = 0.06 * (high - low) or 0.1
        ax.set_xlim(low - room, high + room)
        return
    steps = [d * 10.0**e for e in range(-4, 12) for d in ((1, 2, 5) if high / low < 100 else (1,))]
    if min(costs) > 0:
        ax.set_xscale("log")
        ticks = [t for t in steps if low / 1.3 <= t <= high * 1.3]
        ax.set_xlim(low / 1.3, high * 1.3)
    else:
        start = 10.0 ** math.floor(math.log10(low)) if high > 0 else 1.0
        ax.set_xscale("symlog", linthresh=start, linscale=0.6)
        ticks = [0.0, *(t for t in steps if start <= t <= high * 1.3)]
        ax.set_xlim(-0.4 * start, high * 1.6 if high > 0 else 1.0)
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 or x == 0 else f"{x:g}"))


def _front(here: Sequence[Arm], costs: Sequence[float]) -> list[tuple[float, float]]:
    """Cost and gain of the arms that no other arm beats in both."""
    points = [(cost, arm.gain) for cost, arm in zip(costs, here, strict=True) if math.isfinite(cost)]
    return [p for p in points if not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points)]
