"""The results page of the book: every cell of every study as a row that can be sorted, filtered and remade.

It is a table of HTML that reads without any script; ``book/_static/results.js`` adds sorting and filters. Its rows and
cells carry addresses, roles, labels and values, which ``DataFrame.to_html`` does not write.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from klnorm_lib.pages import pareto
from klnorm_lib.pages.cells import MACHINERY, Cell, cells
from klnorm_lib.pages.counts import runs_behind
from klnorm_lib.pages.remake import cell_command
from klnorm_lib.pages.tables import to_markdown
from klnorm_lib.studies import names as study_names
from klnorm_lib.study import Record
from klnorm_lib.study.stats import Comparison
from klnorm_lib.sweep import grid
from klnorm_lib.sweep.membership import by_study

COLUMNS = ("study", "task", "labels", "encoder", "method", "tested on", "score", "minus baseline", "verdict", "cost")
NUMERIC = ("labels", "score", "minus baseline", "cost")
FILTERS = ("study", "task", "labels", "encoder", "method", "tested on", "verdict")
BAR = 0.1  # what the picture of an interval shows to either side of zero
SIGNS = {"better": "▲", "worse": "▼", "equivalent": "=", "cannot tell": "?"}

WIDE = "---\nhtml_theme.sidebar_secondary.remove: true\n---"  # the table needs the room of the page's own contents
INTRODUCTION = """\
Every number of the book comes from a record of a run, and this page is made of all of them when the book is built. A
row is one arm of a study: a method on one task, with so many labels and one encoder, tested on its test rows or on rows
of another domain. A **draw** is a split seed and a model seed; arms are compared draw by draw.

- **score**: mean over the draws ± their standard deviation, and the number of draws;
- **minus baseline**: the mean paired difference to the study's baseline with its 95 % interval, the error of the test
  rows included where the records hold it; the picture shows the same from minus to plus ten points.
  The baseline is `plain`, in the studies of dropout `uniform_10`: plain as well, with the dropout that encoders come
  with. Where a study has a second baseline the difference to it stands below. `plain_shared` is plain at the learning
  rate that most arms chose, an arm that was added once it was seen that tuning on few rows had given plain another one;
  `uniform_05` is plain with half the dropout, without which guidance and less dropout cannot be told apart;
- **verdict**: better or worse when the interval leaves zero out, equivalent when it lies within the margin, else we
  cannot tell. A star: so it is after Holm's correction over all places in which this arm was compared. No arm is marked
  as the best: that would be a claim without an interval;
- **cost**: median seconds of a run, and the parameters that the method adds. The machine was shared, so small
  differences in time mean nothing here.

Hyperparameters were chosen on validation rows, by runs of their own that are counted below and are not rows. What was
chosen stands with the commands, under *remake*."""


def page(paths: Iterable[str | Path] | None = None) -> str:
    """The whole page in markdown with HTML in it; ``paths``: records files, by default all that are packaged.

    Raises ``RecordError`` if a file is broken, so that a book with a broken record does not build.
    """
    studies = by_study(paths)
    found = {name: cells(records, name) for name, records in studies.items() if name not in MACHINERY}
    counts = runs_behind(studies)
    parts = [WIDE, "# Results", INTRODUCTION]
    if counts.empty:
        return "\n\n".join([*parts, "No records ship with the book yet."]) + "\n"
    total = counts.iloc[-1]
    told = f"**{total['runs']:,} runs** stand behind this book, {total['failed']} of them failed."
    parts += ["## How many runs", told, to_markdown(counts), _questions(studies)]
    parts += ["## Accuracy against cost", *pareto.sections(found)] if any(map(pareto.shown, found.values())) else []
    parts += ["## Every cell", table([cell for of in found.values() for cell in of])]
    parts += ["## Runs that failed", _failures(studies)]
    return "\n\n".join(parts) + "\n"


def _questions(studies: Iterable[str]) -> str:
    """What each study asks."""
    plans = {name: grid.load(name) for name in studies if name in study_names()}
    lines = [f"- **{name}**: {plan.title}. {plan.question}" for name, plan in plans.items()]
    engine = "The runs of smoke only try the engine, and are not among the cells below."
    return "\n".join([*lines, "", engine if set(MACHINERY) & set(studies) else ""])


def table(found: Sequence[Cell]) -> str:
    """The cells as a table of HTML, a row each, with what the script needs to sort and filter them."""
    heads = "".join(
        f'<th role="columnheader" scope="col" data-key="{c}"{" data-numeric" if c in NUMERIC else ""}>{c}</th>'
        for c in COLUMNS
    )
    rows = "\n".join(_row(cell) for cell in found)
    caption = f"{len(found)} cells. With JavaScript, the heads sort and the boxes filter."
    return (
        '<link rel="stylesheet" href="../_static/results.css">\n'
        f'<div class="results" data-filters="{",".join(FILTERS)}">\n<table role="table"><caption>{caption}</caption>\n'
        f'<thead role="rowgroup"><tr role="row">{heads}<th role="columnheader" scope="col">remake</th></tr></thead>\n'
        f'<tbody role="rowgroup">\n{rows}\n</tbody></table>\n</div>\n'
        '<script src="../_static/results.js" defer></script>'
    )


def _bounded(cell: Cell) -> bool:
    return cell.against is not None and cell.against.low == cell.against.low


def _row(cell: Cell) -> str:
    against = cell.against
    verdict = "–" if against is None else against.verdict
    score = _three(cell.mean)
    score += f" ± {cell.spread:.3f}" if cell.spread is not None else ""
    cost = "–" if cell.seconds is None else f"{cell.seconds:.1f} s"
    cost += "" if cell.added_parameters is None else f" <small>+{cell.added_parameters:,}</small>"
    values = [
        (_escape(cell.study if cell.part is None else f"{cell.study}, {cell.part}"), cell.study),
        (_escape(cell.task), cell.task),
        (f"{cell.size:,}", cell.size),
        (_escape(cell.encoder.split("/")[-1]), cell.encoder),
        (_escape(cell.label), cell.label),
        (_escape(cell.split.removeprefix("ood/")), cell.split),
        (f"{score} <small>{_escape(cell.metric)}, {_count(len(cell.runs), 'draw')}</small>", cell.mean),
        (_difference(cell), None if against is None else against.mean),
        (_verdict(cell), verdict),
        (cost, cell.seconds),
    ]
    shown = "".join(
        f'<td role="cell" data-label="{name}"{_value(value, text)}>{text}</td>'
        for name, (text, value) in zip(COLUMNS, values, strict=True)
    )
    return f'<tr role="row" id="{_escape(cell.name)}">{shown}<td role="cell" class="remake">{_remake(cell)}</td></tr>'


def _value(value: object, text: str) -> str:
    """What the script sorts and filters by, where it is not the text itself."""
    told = "" if value is None else f"{value:.6g}" if isinstance(value, float) else _escape(str(value))
    return "" if told == text else f' data-value="{told}"'


def _three(score: float | None) -> str:
    return "–" if score is None else f"{score:.3f}"


def _difference(cell: Cell) -> str:
    c = cell.against
    if c is None:
        return "–"
    if not _bounded(cell):
        return f"{c.mean:+.3f} <small>no interval</small>"
    other = "" if c.baseline == "plain" and c.encoder == cell.encoder else f" <small>to {_escape(_other(cell))}</small>"
    interval = f"<span>[{c.low:+.3f}, {c.high:+.3f}]</span>"
    return f"{c.mean:+.3f} {interval}{other}{_bar(c.mean, c.low, c.high)}{_second(cell.second)}"


def _second(c: Comparison | None) -> str:
    """The same difference to a second baseline, where the study has one."""
    if c is None or c.low != c.low:
        return ""
    return (
        f"<small>to {_escape(c.baseline)}: {c.mean:+.3f} <span>[{c.low:+.3f}, {c.high:+.3f}]</span> {c.verdict}</small>"
    )


def _other(cell: Cell) -> str:
    where = "" if cell.against.encoder == cell.encoder else f", {cell.against.encoder}"
    return f"{cell.against.baseline}{where}"


def _bar(mean: float, low: float, high: float) -> str:
    """The interval as a small picture, zero in the middle, cut off at its ends; the numbers beside it say the same."""
    at = [50 + 50 * max(-1.0, min(1.0, v / BAR)) for v in (low, high, mean)]
    return (
        '<svg class="interval" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="M50 0V10"/><path d="M{at[0]:.1f} 5H{at[1]:.1f}"/><path d="M{at[2]:.1f} 1V9"/></svg>'
    )


def _verdict(cell: Cell) -> str:
    c = cell.against
    if c is None:
        return "–"
    clear = c.verdict in ("better", "worse")
    star = " *" if clear and c.p_holm < 1 - c.level else ""
    return f'<span class="{c.verdict.replace(" ", "-")}">{SIGNS[c.verdict]} {c.verdict}{star}</span>'


def _remake(cell: Cell) -> str:
    """The commands of a cell and of its runs, with each run's score, folded."""
    if not cell.runs:
        return f"{_count(len(cell.failed), 'run')} failed, see below"
    whole, first = cell_command(cell), cell.runs[0]
    parts = [f"<p>Chosen: {_escape(cell.trial)}.</p>"] if cell.trial else []
    if whole:
        parts.append(f"<p>The whole cell, compared with its records:</p><pre>{_escape(whole)}</pre>")
    parts.append(f"<p>Draw {_draw(first)}:</p><pre>{_escape(first.command)}</pre>")
    scores = ", ".join(
        f"{_draw(r)}: {'–' if s is None else f'{s:.3f}'}" for r, s in zip(cell.runs, cell.scores, strict=True)
    )
    others = "" if len(cell.runs) == 1 else "; the others differ in <code>--split-seed</code> and <code>--seed</code>"
    parts.append(f"<p>Draws (split seed/seed: score){others}.<br>{scores}</p>")
    if cell.failed:
        parts.append(f"<p>{_count(len(cell.failed), 'run')} failed and cannot be part of the mean.</p>")
    if cell.against is not None and cell.against.note:
        parts.append(f"<p>{_escape(cell.against.note)}.</p>")
    return f"<details><summary>remake</summary>{''.join(parts)}</details>"


def _draw(record: Record) -> str:
    return f"{record.run['split_seed']}/{record.run['seed']}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _failures(studies: dict[str, list[Record]]) -> str:
    failed = {r.hash: (name, r) for name, records in studies.items() for r in records if r.status == "failed"}
    if not failed:
        return "None."
    lines = [f"# {name}: {r.error['message'].splitlines()[0]}\n{r.command}" for name, r in failed.values()]
    return "```bash\n" + "\n\n".join(lines) + "\n```"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
