"""Paired comparisons as a table, in sentences and as alternative text; the forest plot is in ``figures.forest``."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from klnorm_lib.figures import forest
from klnorm_lib.study.stats import Comparison


def table(comparisons: Sequence[Comparison], names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A row for each pair of arms and a column for each setting: mean, interval and verdict."""
    columns: dict[str, dict[str, str]] = {}
    for c, setting, pair in zip(
        comparisons, forest.settings(comparisons), forest.pairs(comparisons, names)[1], strict=True
    ):
        columns.setdefault(setting, {})[pair] = f"{text(c)} {c.verdict}"
    return pd.DataFrame(columns).fillna("–")


def text(c: Comparison) -> str:
    """Mean and interval of one comparison, in the unit shown: ``+1.2 [-0.4, +2.8]``."""
    factor, shown = forest.unit(c.metric)
    digits = 3 if shown == "nats" else 1
    if not np.isfinite(c.low):
        same = c.k > 1 and np.ptp(c.differences) == 0
        return f"{factor * c.mean:+.{digits}f} [{'the same in every replicate' if same else 'no interval'}]"
    return f"{factor * c.mean:+.{digits}f} [{factor * c.low:+.{digits}f}, {factor * c.high:+.{digits}f}]"


def in_words(comparisons: Sequence[Comparison], names: Mapping[str, str] | None = None) -> str:
    """A line for each pair of arms, with the interval of every setting, and what all of them together are worth."""
    where, (what, who) = forest.settings(comparisons), forest.pairs(comparisons, names)
    _, shown = forest.unit(comparisons[0].metric)
    lines = [f"{what[0].upper()}{what[1:]}, {shown}; {forest.behind(comparisons)}."]
    for pair in dict.fromkeys(who):
        said = []
        for verdict in forest.LOOKS:
            at = [
                f"{setting} {text(c)}"
                for c, setting, name in zip(comparisons, where, who, strict=True)
                if name == pair and c.verdict == verdict
            ]
            said += [f"{verdict}: {'; '.join(at)}"] if at else []
        lines.append(f"{pair}: {'. '.join(said)}.")
    return "\n".join(
        textwrap.fill(line, 78, subsequent_indent="  ", break_on_hyphens=False)
        for line in (*lines, "", summary(comparisons))
    )


def summary(comparisons: Sequence[Comparison]) -> str:
    """How many verdicts of each kind, how many chance alone would give, and what Holm's correction leaves."""
    number, level = len(comparisons), comparisons[0].level
    counts = {verdict: sum(c.verdict == verdict for c in comparisons) for verdict in forest.LOOKS}
    kinds = ", ".join(f"{verdict} {count}" for verdict, count in counts.items())
    clear = sum(c.low > 0 or c.high < 0 for c in comparisons)
    left = sum(c.p_holm < 1 - level for c in comparisons)
    factor, shown = forest.unit(comparisons[0].metric)
    half = factor * float(np.nanmedian([c.high - c.low for c in comparisons])) / 2
    replicates = forest.span(c.k for c in comparisons)
    return (
        f"{number} comparisons of {replicates} paired replicates: {kinds}. Intervals that leave zero out: {clear}, "
        f"where chance alone would give about {(1 - level) * number:.1f}; after Holm's correction: {left}. "
        f"Half an interval: {half:.{3 if shown == 'nats' else 1}f} {shown} in the median."
    )


def alt(comparisons: Sequence[Comparison], names: Mapping[str, str] | None = None) -> str:
    """What the figure shows, for those who do not see it."""
    what, who = forest.pairs(comparisons, names)
    shown = f"at {'; '.join(dict.fromkeys(forest.settings(comparisons)))}, for {', '.join(dict.fromkeys(who))}"
    marks = "Dots are replicates, a mark their mean, a bar its interval."
    return f"Forest plot of paired differences, {what}, {shown}. {marks} {summary(comparisons)}"
