"""Accuracy against cost, a plot: what each arm gains on its baseline, and what it takes for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from klnorm_lib.figures import style

STEPS = 3  # arms whose step was measured, below which its panel is left out


@dataclass(frozen=True)
class Arm:
    """One arm over all settings that every arm of a study has: its gain with an interval, and its cost.

    ``gain``, ``low``, ``high``: mean difference to the baseline, percentage points; ``time``: seconds of a run over
    those of the baseline, geometric mean over settings; ``added``: parameters that the method adds, mean over settings;
    ``step``: time of a training step over the baseline's, from the packaged measurement of cost, NaN where that has
    none; ``baseline``: whether it is one, the study's own or a second one.
    """

    label: str
    gain: float
    low: float
    high: float
    time: float
    added: float
    step: float = math.nan
    baseline: bool = False


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
    finite = [i for i, cost in enumerate(costs) if math.isfinite(cost)]
    for i in finite:
        ax.plot([costs[i], costs[i]], [here[i].low, here[i].high], color=style.PALETTE[0], lw=1.2, alpha=0.5)
        ax.plot(costs[i], here[i].gain, "o", color=style.PALETTE[0], ms=5)
    # Names stand in a column beside the plot, in the order of their gains, so that none hides another.
    order = sorted(finite, key=lambda i: (here[i].gain, -costs[i]))
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
    ax.set(xlabel=label, ylabel="minus baseline, percentage points")


def _scale(ax, costs: Sequence[float]) -> None:
    """A linear axis for costs that are close to each other, else a logarithmic one, with zero where it is needed."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(c for c in [*costs, math.inf] if c > 0), max(costs)
    if min(costs) > 0 and high / low < 4:
        margin = 0.06 * (high - low) or 0.1
        ax.set_xlim(low - margin, high + margin)
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
