"""The table of an encoder's card: frozen features of several encoders, by task and number of labels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from klnorm_lib.pages.card_claims import NONE, Against, arms_of, complete, final, scores, settings_of
from klnorm_lib.study import Record
from klnorm_lib.study.stats import Scores
from klnorm_lib.sweep.design import Grid

STUDIES = {"klnorm-tiny": "text_table"}  # encoder: the study of its table
Table = dict[tuple[str, str, int], dict[str, Scores]]


def markdown(name: str, grid: Grid, records: Iterable[Record]) -> str:
    """Mean test score of every encoder's frozen features, by task and size, as a markdown table; the best in bold.

    The last column is the encoder ``name`` minus the first one, paired by seed, with its 95 % interval.
    """
    found = scores_by_encoder(grid, records)
    if not found:
        return f"{NONE}\n"
    names = list(next(iter(found.values())))
    lines = [["task", "labels", *(n.split("/")[-1] for n in names), f"{name} minus {names[0]}"]]
    lines.append([":--", "--:", *["--:"] * len(names), ":--"])
    for (task, metric, size), arms in found.items():
        means = {encoder: float(np.mean(list(arms[encoder].values()))) for encoder in names}
        best = max(means.values())
        shown = [f"**{m:.3f}**" if m == best else f"{m:.3f}" for m in means.values()]
        other = Against.of(arms[name], names[0], arms[names[0]])
        title = f"{task}{'' if metric == 'accuracy' else f' ({metric})'}"
        lines.append([title, str(size), *shown, str(other)])
    for size, means in mean_of_tasks(found).items():
        count = len({task for task, _, s in found if s == size})
        lines.append([f"mean of {count} tasks", str(size), *(f"{means[name]:.3f}" for name in names), ""])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    recorded = {(task, size) for task, _, size in found}
    missing = list(dict.fromkeys(task for task, size in settings_of(grid) if (task, size) not in recorded))
    return table + (f"\n\nNot measured yet, or not at every size: {', '.join(missing)}.\n" if missing else "\n")


def mean_of_tasks(found: Table) -> dict[int, dict[str, float]]:
    """Size to encoder to the mean over tasks of the mean over seeds."""
    names = list(next(iter(found.values())))
    result = {}
    for size in sorted({size for _, _, size in found}):
        at = [arms for (_, _, s), arms in found.items() if s == size]
        result[size] = {n: float(np.mean([np.mean(list(arms[n].values())) for arms in at])) for n in names}
    return result


def scores_by_encoder(grid: Grid, records: Iterable[Record]) -> Table:
    """Test scores of the encoders of a study of one arm: (task, metric, size) to encoder to scores by seed.

    Tasks and sizes of which an encoder lacks a seed are left out.
    """
    members = final(records)
    found: Table = {}
    for task, size in settings_of(grid):
        wanted = arms_of(grid, task, size)
        if all(complete(members[key], replicates) for key, replicates in wanted):
            metric = members[wanted[0][0]][0].task["primary_metric"]
            found[task, metric, size] = {key[2]: scores(members[key]) for key, _ in wanted}
    return found
