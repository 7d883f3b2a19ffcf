"""Ratios of step time, arm by arm."""

from __future__ import annotations

from collections.abc import Mapping

from klnorm_lib.figures import style


def draw(axes, ratios: Mapping[str, tuple[float, float, float]], labels: Mapping[str, str], title: str) -> None:
    """Draw ratios of step time on ``axes``: the median of every arm and its interval, and a line at 1.

    ``ratios``: arm to (median, low, high), from top to bottom, see ``klnorm_lib.pages.cost.ratios``; ``labels``: arm to
    the name that is shown.
    """
    names = list(ratios)[::-1]
    axes.axvline(1.0, color=style.INK, linewidth=1)
    for row, name in enumerate(names):
        middle, low, high = ratios[name]
        look = 0 if name.startswith("klnorm") else 1
        axes.plot([low, high], [row, row], color=style.PALETTE[look])
        axes.plot(middle, row, style.MARKERS[look], color=style.PALETTE[look])
    axes.set_yticks(range(len(names)), [labels.get(name, name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_title(title)
