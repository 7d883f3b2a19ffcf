"""Forest plots of paired comparisons; every number is that of ``klnorm_lib.study.stats``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

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
    return (1.0, "nats") if metric.split("/")[-1] in NATS else (100.0, "percentage points")


def labels(records: Iterable) -> dict[str, str]:
    """Arm to the label that its study gave it, from records that belong to a study; the first one counts."""
    found: dict[str, str] = {}
    for record in records:
        if record.study:
            found.setdefault(record.study["arm"], record.study["label"])
    return found


def settings(comparisons: Sequence[Comparison]) -> list[str]:
    """The setting of each comparison: its task, and whatever else there are two of among all.

    Of one task and one metric on several sets, the name of the set is enough.

    Raises ``LookupError`` when there are none.
    """
    if not comparisons:
        raise LookupError("there is nothing to compare: the records hold no replicate that both arms have")
    several = {name: len({getattr(c, name) for c in comparisons}) > 1 for name in ("size", "encoder")}
    metrics = {task: {c.metric for c in comparisons if c.task == task} for task in {c.task for c in comparisons}}
    sets_only = len(metrics) == 1 and len({c.metric.split("/")[-1] for c in comparisons}) == 1
    budgets = {c.setting.get("steps") for c in comparisons}
    found = []
    for c in comparisons:
        where = c.metric.split("/")[-2] if sets_only and c.metric.startswith("ood/") else str(c.task)
        words = [f"{where} at {c.size}" if several["size"] else where]
        words += [str(c.encoder).split("/")[-1]] if several["encoder"] else []
        words += [f"{c.setting['steps']} steps"] if len(budgets) > 1 else []
        words += [metric_in_words(c.metric)] if any(len(m) > 1 for m in metrics.values()) and not sets_only else []
        found.append(", ".join(words))
    return found


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
    panel: str = "setting",
):
    """The forest plot, a figure: every replicate a dot, the mean a mark, its interval a bar.

    ``names``: arm to label, see :func:`labels`. ``panel``: a panel for each ``setting`` with a row for each pair of
    arms, for each ``pair`` with a row for each setting, or for each setting and ``baseline`` with a row for each arm.
    ``columns``: panels side by side, at most two if not given.
    ``limit``: differences beyond plus or minus it, in the unit shown, are drawn at the edge, with the mean in writing.
    Marks: triangles up and down for ``better`` and ``worse``, squares for ``equivalent``, diamonds for ``cannot tell``;
    a star: zero is left out after Holm's correction, too. The tinted band is the margin within which arms count as
    equivalent. Rows have the same height in every panel.

    Raises ``LookupError`` when there is nothing to draw, ``ValueError`` for metrics of two units.
    """
    import matplotlib.pyplot as plt

    where, (what, who) = settings(comparisons), pairs(comparisons, names)
    if panel == "baseline":
        what, (of, rows) = "arm minus baseline", _by_baseline(comparisons, where, names or {})
    else:
        of, rows = (where, who) if panel == "setting" else ([_pair_title(what, name) for name in who], where)
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
    of = minus if len(set(where)) == 1 else [f"{setting}\n{text}" for setting, text in zip(where, minus, strict=True)]
    return of, [names.get(c.arm, c.arm) for c in comparisons]


def _pair_title(what: str, name: str) -> str:
    """The title of a panel that holds one pair of arms, where the axis says the rest."""
    return f"minus {name}" if what.endswith("minus arm") else name


def behind(comparisons: Sequence[Comparison]) -> str:
    """How many labels and replicates stand behind some comparisons: ``200 labels, 5 to 10 replicates``."""
    return f"{span(c.size for c in comparisons)} labels, {span(c.k for c in comparisons)} replicates"


def span(numbers: Iterable[int]) -> str:
    """Some numbers in words: ``5``, or the smallest to the largest of them, ``3 to 10``."""
    values = sorted(set(numbers))
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _panel(ax, part: Sequence[tuple[Comparison, int]], factor: float, limit: float | None) -> None:
    edge = np.inf if limit is None else 0.97 * limit
    for y in range(1, max(y for _, y in part) + 1, 2):
        ax.axhspan(y - 0.5, y + 0.5, color=style.GRID, alpha=0.35, lw=0)
    margin = factor * part[0][0].margin
    ax.axvspan(-margin, margin, color=style.PALETTE[3], alpha=0.1, lw=0)
    ax.axvline(0, color=style.INK, lw=1, ls=":")
    for c, y in part:
        marker, colour = LOOKS[c.verdict]
        values = np.clip(factor * np.asarray(c.differences), -edge, edge)
        ax.plot(values, np.full(len(values), y - 0.27), "o", color=colour, ms=3.2, alpha=0.5, mec="none")
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
    return [*marks, Line2D([], [], color=style.INK, marker="o", ms=3.2, alpha=0.5, lw=0, label="one replicate")]
