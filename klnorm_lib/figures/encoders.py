"""Figures of the encoders that ship: differences to other arms, every seed a point, and scores against labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from klnorm_lib.figures import style

_LOOKS = {"better": ("^", style.PALETTE[0]), "worse": ("v", style.PALETTE[1]), "cannot tell": ("D", style.INK)}


@dataclass(frozen=True)
class Row:
    """One row of the forest plot: label, a difference for each seed, the interval of their mean, and the verdict."""

    label: str
    change: np.ndarray
    low: float
    high: float
    verdict: str


def forest(cards: Mapping[str, Sequence[Row]]):
    """An encoder minus other arms, a row each, and a panel for each encoder.

    Small dots: seeds; marks: means; bars: 95 % intervals. Triangles: the interval leaves zero out.
    """
    import matplotlib.pyplot as plt

    heights = [len(rows) + 1 for rows in cards.values()]
    size = (6.4, 0.36 * sum(heights) + 0.9)
    fig, axes = plt.subplots(len(cards), 1, figsize=size, sharex=True, height_ratios=heights, squeeze=False)
    for ax, (name, rows) in zip(axes.flat, cards.items(), strict=True):
        for y, row in enumerate(rows):
            marker, colour = _LOOKS[row.verdict]
            ax.plot([row.low, row.high], [y, y], color=colour, lw=2)
            ax.plot(row.change, np.full(len(row.change), y - 0.28), "o", color=style.PALETTE[2], ms=3.5, alpha=0.6)
            ax.plot(row.change.mean(), y, marker, color=colour, ms=7)
        ax.axvline(0, color=style.INK, lw=1, ls=":")
        ax.set(yticks=range(len(rows)), yticklabels=[row.label for row in rows], ylim=(len(rows) - 0.4, -0.8))
        ax.tick_params(axis="y", labelsize=style.FONT - 3)
        ax.set_title(f"{name} minus the arm named", loc="left", fontsize=style.FONT)
        ax.grid(axis="y", visible=False)
    axes[-1, 0].set_xlabel("difference of the test score")
    return fig


def ladder(means: Mapping[int, Mapping[str, float]], tasks: int):
    """Mean score over ``tasks`` tasks against labels, a line an encoder; ``means``: labels to encoder to score."""
    import matplotlib.pyplot as plt

    sizes, names = list(means), list(next(iter(means.values())))
    fig, ax = plt.subplots(figsize=(6.0, 5.0))
    for i, name in enumerate(names):
        look = {"marker": style.MARKERS[i], "ls": style.DASHES[i], "color": style.PALETTE[i]}
        ax.plot(sizes, [means[size][name] for size in sizes], label=name.split("/")[-1], **look)
    ax.set(
        xscale="log",
        xlabel="labels, validation included",
        ylabel=f"mean score of {tasks} tasks",
    )
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=2)
    return fig
