"""Forest plots and sentences from paired comparisons; every number is that of ``klnorm_lib.study.stats``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from klnorm_lib.figures import style
from klnorm_lib.study.stats import Comparison

LOOKS = {
    "better": ("^", style.PALETTE[0]),
    "worse": ("v", style.PALETTE[1]),
    "equivalent": ("s", style.PALETTE[3]),
    "cannot tell": ("D", style.INK),
}
ROW = 0.36  # inches of height for one comparison
NATS = ("nll",)  # measured in nats; everything else is a fraction and shown in hundredths
WORDS = {"ece": "calibration error", "gap": "train-test gap"}


def unit(metric: str) -> tuple[float, str]:
    """The factor by which a difference of this metric is shown, and the name of what is shown."""
    return (1.0, "nats") if metric.split("/")[-1] in NATS else (100.0, "points")


def labels(records: Iterable) -> dict[str, str]:
    """Arm to the label that its study gave it, from records that belong to a study; the first one counts."""
    found: dict[str, str] = {}
    for record in records:
        if record.study:
            found.setdefault(record.study["arm"], record.study["label"])
    return found


def places(comparisons: Sequence[Comparison]) -> list[str]:
    """Where each comparison was made: its task, and whatever else there are two of among all.

    Of one task and one metric on several sets, the name of the set is enough.

    Raises ``LookupError`` when there are none.
    """
    if not comparisons:
        raise LookupError("there is nothing to compare: the records hold no draw that both arms have")
    several = {name: len({getattr(c, name) for c in comparisons}) > 1 for name in ("size", "encoder")}
    metrics = {task: {c.metric for c in comparisons if c.task == task} for task in {c.task for c in comparisons}}
    sets_only = len(metrics) == 1 and len({c.metric.split("/")[-1] for c in comparisons}) == 1
    told = []
    for c in comparisons:
        where = c.metric.split("/")[-2] if sets_only and c.metric.startswith("ood/") else str(c.task)
        words = [f"{where} at {c.size}" if several["size"] else where]
        words += [str(c.encoder).split("/")[-1]] if several["encoder"] else []
        words += [f"{c.cell['steps']} steps"] if len({other.cell.get("steps") for other in comparisons}) > 1 else []
        words += [metric_in_words(c.metric)] if any(len(m) > 1 for m in metrics.values()) and not sets_only else []
        told.append(", ".join(words))
    return told


def metric_in_words(metric: str) -> str:
    """A metric as a reader would say it: ``ood/scitail/accuracy`` is the accuracy on scitail."""
    first, *rest = metric.split("/")
    if first == "ood":  # names of sets may hold a slash
        return f"{WORDS.get(rest[-1], rest[-1])} on {'/'.join(rest[:-1])}" if len(rest) > 1 else f"on {rest[0]}"
    return WORDS.get(first, first)


def pairs(comparisons: Sequence[Comparison], names: Mapping[str, str] | None = None) -> tuple[str, list[str]]:
    """What is subtracted from what, and the name of each comparison: of the side that varies, or of both."""
    names = names or {}
    arm = [names.get(c.arm, c.arm) for c in comparisons]
    base = [names.get(c.baseline, c.baseline) for c in comparisons]
    if len(set(base)) == 1 and len(set(arm)) == 1:
        return f"{arm[0]} minus {base[0]}", arm
    if len(set(base)) == 1:
        return f"arm minus {base[0]}", arm
    if len(set(arm)) == 1:
        return f"{arm[0]} minus arm", base
    return "difference", [f"{one} minus {other}" for one, other in zip(arm, base, strict=True)]


def draw(
    comparisons: Sequence[Comparison],
    names: Mapping[str, str] | None = None,
    columns: int | None = None,
    limit: float | None = None,
    panel: str = "place",
):
    """The forest plot, a figure: every draw a dot, the mean a mark, its interval a bar.

    ``names``: arm to label, see :func:`labels`. ``panel``: a panel for each ``place`` with a row for each pair of arms,
    for each ``pair`` with a row for each place, or for each place and ``baseline`` with a row for each arm.
    ``columns``: panels side by side, at most two if not given.
    ``limit``: differences beyond plus or minus it, in the unit shown, are drawn at the edge, with the mean in writing.
    Marks: triangles up and down for ``better`` and ``worse``, squares for ``equivalent``, diamonds for ``cannot tell``;
    a star: zero is left out after Holm's correction, too. The tinted band is the margin within which arms count as
    equivalent. Rows have the same height in every panel.

    Raises ``LookupError`` when there is nothing to draw, ``ValueError`` for metrics of two units.
    """
    import matplotlib.pyplot as plt

    where, (what, who) = places(comparisons), pairs(comparisons, names)
    if panel == "baseline":
        what, (of, rows) = "arm minus baseline", _by_baseline(comparisons, where, names or {})
    else:
        of, rows = (where, who) if panel == "place" else ([_told_apart(what, name) for name in who], where)
    units = {unit(c.metric) for c in comparisons}
    if len(units) > 1:
        raise ValueError("the metrics of one figure must share a unit; draw those in nats by themselves")
    factor, shown = units.pop()
    order, titles = list(dict.fromkeys(rows)), list(dict.fromkeys(of))
    columns = min(columns or 2, len(titles))
    lines = -(-len(titles) // columns)
    parts = {
        title: [(c, order.index(row)) for c, row, o in zip(comparisons, rows, of, strict=True) if o == title]
        for title in titles
    }
    runs = {title: behind([c for c, _ in part]) for title, part in parts.items()}
    alike = len(set(runs.values())) == 1
    size = (6.4, lines * (ROW * (len(order) + 1) + (0.15 if alike else 0.45)) + 1.2)
    fig, axes = plt.subplots(lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax, (title, part) in zip(axes.flat, parts.items(), strict=False):
        _panel(ax, part, factor, limit)
        above = [title.replace(", ", "\n") if columns > 2 and panel != "baseline" else title]
        above += [] if alike else [runs[title].replace(", ", "\n") if columns > 1 else runs[title]]
        ax.set_title("\n".join(above), loc="left", fontsize=style.FONT - (3 if columns > 2 else 1))
    for ax in axes.flat[len(titles) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set(yticks=range(len(order)), yticklabels=order, ylim=(len(order) - 0.35, -0.85))
    for column in range(columns):  # the last panel of each column has the numbers
        axes[(len(titles) - 1 - column) // columns, column].tick_params(axis="x", labelbottom=True)
    if limit is not None:
        axes[0, 0].set_xlim(-limit, limit)
    below = [f"{what}, {shown}", *([next(iter(runs.values()))] if alike else [])]
    fig.supxlabel("\n".join(below), fontsize=style.FONT)
    fig.legend(handles=_legend({c.verdict for c in comparisons}), loc="outside upper center", ncols=3)
    return fig


def _by_baseline(comparisons: Sequence[Comparison], where: Sequence[str], names: Mapping[str, str]):
    """The title of each comparison's panel, and its row: what is subtracted where, and from which arm."""
    minus = [f"minus {names.get(c.baseline, c.baseline)}" for c in comparisons]
    of = minus if len(set(where)) == 1 else [f"{place}\n{text}" for place, text in zip(where, minus, strict=True)]
    return of, [names.get(c.arm, c.arm) for c in comparisons]


def _told_apart(what: str, name: str) -> str:
    """The title of a panel that holds one pair of arms, where the axis says the rest."""
    return f"minus {name}" if what.endswith("minus arm") else name


def behind(comparisons: Sequence[Comparison]) -> str:
    """How many labels and draws stand behind some comparisons: ``200 labels, 5 to 10 draws``."""
    sizes, draws = (sorted(values) for values in ({c.size for c in comparisons}, {c.k for c in comparisons}))
    return f"{_span(sizes)} labels, {_span(draws)} draws"


def _span(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _panel(ax, part: Sequence[tuple[Comparison, int]], factor: float, limit: float | None) -> None:
    edge = np.inf if limit is None else 0.97 * limit
    for y in range(1, max(y for _, y in part) + 1, 2):
        ax.axhspan(y - 0.5, y + 0.5, color=style.GRID, alpha=0.35, lw=0)
    margin = factor * part[0][0].margin
    ax.axvspan(-margin, margin, color=style.PALETTE[3], alpha=0.1, lw=0)
    ax.axvline(0, color=style.INK, lw=1, ls=":")
    for c, y in part:
        marker, colour = LOOKS[c.verdict]
        drawn = np.clip(factor * np.asarray(c.differences), -edge, edge)
        ax.plot(drawn, np.full(len(drawn), y - 0.27), "o", color=colour, ms=3.2, alpha=0.5, mec="none")
        low, mean, high = (float(np.clip(factor * v, -edge, edge)) for v in (c.low, c.mean, c.high))
        ax.plot([low, high], [y + 0.1, y + 0.1], color=colour, lw=2, solid_capstyle="butt")
        ax.plot(mean, y + 0.1, marker, color=colour, ms=6.5)
        star = "*" if c.p_holm < 1 - c.level else ""
        beyond = abs(factor * c.mean) > edge
        text = f"{factor * c.mean:+.0f}{star}".replace("-", "−") if beyond else star
        at, side, shift = (mean, "right", -8) if beyond and mean > 0 else (high, "left", 8 if beyond else 3)
        look = {"textcoords": "offset points", "ha": side, "color": colour, "fontsize": style.FONT - 2 * beyond}
        ax.annotate(text, (at, y + 0.1), (shift, -4 if beyond else -6), **look)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def _legend(verdicts: Iterable[str]) -> list:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=colour, marker=marker, ms=6.5, lw=2, label=verdict)
        for verdict, (marker, colour) in LOOKS.items()
        if verdict in set(verdicts)
    ]
    return [*marks, Line2D([], [], color=style.INK, marker="o", ms=3.2, alpha=0.5, lw=0, label="one draw")]


def table(comparisons: Sequence[Comparison], names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The same as a table, a row for each pair of arms and a column for each place: mean, interval and verdict."""
    cells: dict[str, dict[str, str]] = {}
    for c, place, pair in zip(comparisons, places(comparisons), pairs(comparisons, names)[1], strict=True):
        cells.setdefault(place, {})[pair] = f"{told(c)} {c.verdict}"
    return pd.DataFrame(cells).fillna("–")


def told(c: Comparison) -> str:
    """Mean and interval of one comparison, in the unit shown: ``+1.2 [-0.4, +2.8]``."""
    factor, shown = unit(c.metric)
    digits = 1 if shown == "points" else 3
    if not np.isfinite(c.low):
        same = c.k > 1 and np.ptp(c.differences) == 0
        return f"{factor * c.mean:+.{digits}f} [{'the same in every draw' if same else 'no interval'}]"
    return f"{factor * c.mean:+.{digits}f} [{factor * c.low:+.{digits}f}, {factor * c.high:+.{digits}f}]"


def in_words(comparisons: Sequence[Comparison], names: Mapping[str, str] | None = None) -> str:
    """A line for each pair of arms, with the interval of every place, and what all of them together are worth."""
    where, (what, who) = places(comparisons), pairs(comparisons, names)
    _, shown = unit(comparisons[0].metric)
    lines = [f"{what[0].upper()}{what[1:]}, {shown}; {behind(comparisons)}."]
    for pair in dict.fromkeys(who):
        said = []
        for verdict in LOOKS:
            at = [
                f"{place} {told(c)}"
                for c, place, name in zip(comparisons, where, who, strict=True)
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
    counts = {verdict: sum(c.verdict == verdict for c in comparisons) for verdict in LOOKS}
    kinds = ", ".join(f"{verdict} {count}" for verdict, count in counts.items())
    clear = sum(c.low > 0 or c.high < 0 for c in comparisons)
    left = sum(c.p_holm < 1 - level for c in comparisons)
    factor, shown = unit(comparisons[0].metric)
    half = factor * float(np.nanmedian([c.high - c.low for c in comparisons])) / 2
    draws = _span(sorted({c.k for c in comparisons}))
    return (
        f"{number} comparisons of {draws} paired draws: {kinds}. Intervals that leave zero out: {clear}, where "
        f"chance alone would give about {(1 - level) * number:.1f}; after Holm's correction: {left}. "
        f"Half an interval: {half:.{1 if shown == 'points' else 3}f} {shown} in the median."
    )


def alt(comparisons: Sequence[Comparison], names: Mapping[str, str] | None = None) -> str:
    """What the figure shows, for those who do not see it."""
    what, who = pairs(comparisons, names)
    shown = f"at {'; '.join(dict.fromkeys(places(comparisons)))}, for {', '.join(dict.fromkeys(who))}"
    marks = "Dots are draws, a mark their mean, a bar its interval."
    return f"Forest plot of paired differences, {what}, {shown}. {marks} {summary(comparisons)}"
