"""A method against each of its controls, seed by seed: as a table, as a forest plot, and in words.

Intervals are Student's; Holm's correction is over all rows of one table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from klnorm_lib.report import paired, style
from klnorm_lib.report.tables import method_label
from klnorm_lib.study import Record

LEVEL = 0.95
_LOOKS = {"better": ("^", style.PALETTE[0]), "worse": ("v", style.PALETTE[1]), "cannot tell": ("D", style.INK)}


def comparisons(records: Iterable[Record], method: str = "klnorm") -> pd.DataFrame:
    """One row for each task, size, encoder, budget, split and control: the method minus the control, in points.

    ``records``: finished ones are used. The method's own arm with ``beta=0`` is a control. Each arm is at the learning
    rate with the best mean validation score among those that both were tried at; out-of-domain scores are of the same
    runs. Columns: task, size, encoder, split, arm, control, change (an array, one difference of the primary metric for
    each pair of seeds, in hundredths), low, high (95 % interval of the mean), verdict, p (two-sided t test), holm
    (whether zero is left out after Holm's correction over the table), largest (whether a rate is the largest tried).
    Raises ``LookupError`` when nothing can be compared.
    """
    cells: dict[tuple, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.status == "finished":
            size = record.rows["train"] + record.rows["validation"]
            place = (record.task["name"], size, record.encoder["name"], record.run["steps"])
            cells[place][method_label(record)].append(record)
    rows = []
    for (task, size, encoder, _), arms in cells.items():
        ours = {label: arm for label, arm in arms.items() if _is(arm[0], method)}
        place = {"task": task, "size": size, "encoder": encoder}
        for label, arm in ours.items():
            for name in sorted(set(arms) - set(ours), key=lambda n: (n != "plain", n)):
                rows += [place | row for row in _compare(label, arm, name, arms[name])]
    if not rows:
        raise LookupError(
            f"the records hold no two seeds of {method} and of another arm on the same task, size, encoder and steps"
        )
    table = pd.DataFrame(rows)
    ordered = table["p"].sort_values(kind="stable")
    steps = (ordered * np.arange(len(ordered), 0, -1)).cummax()
    table["holm"] = (steps < 1 - LEVEL).reindex(table.index)
    return table


def _is(record: Record, method: str) -> bool:
    return record.method["name"] == method and record.method["fields"].get("beta") != 0


def _compare(label: str, arm: list[Record], name: str, control: list[Record]) -> Iterable[dict]:
    pair = paired.shared_rates(arm, control)
    rates = [paired.best_rate(records)[1] for records in pair]
    largest = any(paired.best_rate(records)[2] for records in pair)
    for split in ("test", *(f"ood/{name}" for name in arm[0].ood)):
        change = 100 * paired.differences(*(_scores(r, rate, split) for r, rate in zip(pair, rates, strict=True)))
        if len(change) < 2:
            continue
        low, high = paired.t_interval(change, LEVEL)
        yield {
            "split": split,
            "arm": label,
            "control": name,
            "change": change,
            "low": low,
            "high": high,
            "verdict": paired.verdict(low, high),
            "p": _p(change),
            "largest": largest,
        }


def _scores(records: list[Record], rate: float, split: str) -> paired.Scores:
    found = {}
    for record in records:
        scores = record.test if split == "test" else record.ood.get(split.removeprefix("ood/"), {})
        value = scores.get(record.task["primary_metric"])
        if record.run["learning_rate"] == rate and value is not None:
            found[record.run["split_seed"], record.run["seed"]] = value
    return found


def _p(change: np.ndarray) -> float:
    if np.ptp(change) == 0:  # no spread: the t statistic is infinite, or 0 / 0
        return float(change[0] == 0)
    return float(stats.ttest_1samp(change, 0.0).pvalue)


def panels(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each panel of :func:`draw`, by its title: one task, size, split, and what else there are two of."""
    told = [column for column in ("encoder", "arm") if table[column].nunique() > 1]
    found: dict[str, pd.DataFrame] = {}
    for _, part in table.groupby(["task", "size", "encoder", "arm", "split"], sort=False):
        row = part.iloc[0]
        split = row["split"].replace("ood/", "shift of ")
        found[", ".join([row["task"], f"{row['size']} labels", *row[told], split])] = part
    return found


def _minus(table: pd.DataFrame) -> str:
    arms = table["arm"].unique()
    return f"{arms[0] if len(arms) == 1 else 'method'} minus control"


def draw(table: pd.DataFrame):
    """The forest plot of :func:`comparisons`, a figure: every seed a dot, the mean a mark, its interval a bar.

    Triangles up and down: the interval leaves zero out; diamonds: it does not. A star: so it does after Holm's
    correction.
    """
    import matplotlib.pyplot as plt

    parts = panels(table)
    heights = [len(part) + 0.8 for part in parts.values()]
    size = (6.4, 0.42 * sum(heights) + 0.9)
    fig, axes = plt.subplots(len(parts), 1, figsize=size, sharex=True, height_ratios=heights, squeeze=False)
    for ax, (title, part) in zip(axes.flat, parts.items(), strict=True):
        for y, row in enumerate(part.itertuples()):
            marker, colour = _LOOKS[row.verdict]
            ax.plot([row.low, row.high], [y, y], color=colour, lw=2)
            ax.plot(row.change, np.full(len(row.change), y - 0.32), "o", color=style.PALETTE[2], ms=4, alpha=0.6)
            ax.plot(row.change.mean(), y, marker, color=colour, ms=8)
        ax.axvline(0, color=style.INK, lw=1, ls=":")
        names = [f"{row.control}{' *' if row.holm else ''}" for row in part.itertuples()]
        ax.set(yticks=range(len(part)), yticklabels=names, ylim=(len(part) - 0.4, -0.8))
        ax.set_title(title, loc="left", fontsize=style.FONT)
        ax.grid(axis="y", visible=False)
    axes[-1, 0].set_xlabel(f"{_minus(table)}, points")
    return fig


def in_words(table: pd.DataFrame) -> str:
    """Every row of :func:`comparisons` as a line, and what may be made of all of them together."""
    lines = []
    for title, part in panels(table).items():
        lines.append(f"{title}: {_minus(table)}, points")
        width = max(map(len, part["control"]))
        for row in part.itertuples():
            told = f"{row.change.mean():+5.1f} [{row.low:+5.1f}, {row.high:+5.1f}]"
            lines.append(f"  {row.control:<{width}} {told} {row.verdict}{', after Holm too' if row.holm else ''}")
    clear, number = (table["verdict"] != "cannot tell").sum(), len(table)
    seeds = sorted({len(change) for change in table["change"]})
    half = ((table["high"] - table["low"]) / 2).median()
    lines += [
        "",
        f"{clear} of {number} intervals leave zero out; chance alone would give about {(1 - LEVEL) * number:.1f}.",
        f"{table['holm'].sum()} of {number} do after Holm's correction over all of them.",
        f"Pairs of seeds: {' or '.join(map(str, seeds))}. Median width of the intervals: {2 * half:.1f} points.",
    ]
    if table["largest"].any():
        lines.append(
            f"In {table['largest'].sum()} rows an arm is at the largest learning rate tried: it may be undertuned."
        )
    return "\n".join(lines)
