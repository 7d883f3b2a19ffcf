"""The results page of the book: every outcome of every study as a row that can be sorted, filtered and remade.

It is a table of HTML that reads without any script; ``book/_static/results.js`` adds sorting and filters. Its rows and
cells carry addresses, roles, labels and values, which ``DataFrame.to_html`` does not write.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from klnorm_lib.pages import pareto
from klnorm_lib.pages.counts import runs_behind
from klnorm_lib.pages.outcomes import MACHINERY, Outcome, outcomes
from klnorm_lib.pages.remake import remake_command
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

WIDE = "---\nhtml_theme.sidebar_secondary.remove: true\n---"  # the table needs the space of the page's own contents
INTRODUCTION = """\
Every number of the book comes from a record of a run, and this page is made of all of them when the book is built. A
row is one arm of a study: a method on one task, with so many labels and one encoder, tested on its test rows or on rows
of another domain. A {term}`replicate` is a split seed and a model seed; arms are compared within replicates.

- **score**: mean over the replicates ± their standard deviation, and the number of replicates;
- **minus baseline**: the mean paired difference to the study's baseline with its 95 % interval, the error of the test
  rows included where the records hold it; the picture shows the same from minus to plus ten
  percentage points.
  The baseline is `plain`, in the studies of dropout `uniform_10`: plain as well, with the dropout that encoders come
  with. Where a study has a second baseline the difference to it stands below. `plain_shared` is plain at the learning
  rate that most arms chose, an arm that was added once it was seen that tuning on few rows had given plain another one;
  `uniform_05` is plain with half the dropout, without which guidance and less dropout cannot be distinguished;
- **verdict**: better or worse when the interval leaves zero out, equivalent when it lies within the margin, else we
  cannot tell. A star: so it is after Holm's correction over all settings in which this arm was compared. No arm is
  marked as the best: that would be a claim without an interval;
- **cost**: median seconds of a run, and the parameters that the method adds. The machine was shared, so small
  differences in time mean nothing here.

Hyperparameters were chosen on validation rows, by runs of their own that are counted below and are not rows. What was
chosen stands with the commands, under *remake*."""


def page(paths: Iterable[str | Path] | None = None) -> str:
    """The whole page in markdown with HTML in it; ``paths``: records files, by default all that are packaged.

    Raises ``RecordError`` if a file is broken, so that a book with a broken record does not build, and ``StudyError``
    for records without a study in a file that is not called like one.
    """
    studies = by_study(paths)
    found = {name: outcomes(records, name) for name, records in studies.items() if name not in MACHINERY}
    counts = runs_behind(studies)
    parts = [WIDE, "# Results", INTRODUCTION]
    if counts.empty:
        return "\n\n".join([*parts, "No records ship with the book yet."]) + "\n"
    total = counts.iloc[-1]
    counted = f"**{total['runs']:,} runs** stand behind this book, {total['failed']} of them failed."
    parts += ["## How many runs", counted, to_markdown(counts), _questions(studies)]
    parts += ["## Accuracy against cost", *pareto.sections(found)] if any(map(pareto.shown, found.values())) else []
    parts += ["## Every result", table([outcome for of in found.values() for outcome in of])]
    parts += ["## Runs that failed", _failures(studies)]
    return "\n\n".join(parts) + "\n"


def _questions(studies: Iterable[str]) -> str:
    """What each study asks."""
    plans = {name: grid.load(name) for name in studies if name in study_names()}
    titles = {name: f"{plan.title}{'' if plan.title.endswith('?') else '.'}" for name, plan in plans.items()}
    lines = [f"- **{name}**: {titles[name]} {plan.question}" for name, plan in plans.items()]
    engine = "The runs of smoke only try the engine, and are not among the results below."
    return "\n".join([*lines, "", engine if set(MACHINERY) & set(studies) else ""])


def table(found: Sequence[Outcome]) -> str:
    """The outcomes as a table of HTML, a row each, with what the script needs to sort and filter them."""
    heads = "".join(
        f'<th role="columnheader" scope="col" data-key="{c}"{" data-numeric" if c in NUMERIC else ""}>{c}</th>'
        for c in COLUMNS
    )
    rows = "\n".join(map(_row, found))
    caption = f"{len(found)} results. With JavaScript, the heads sort and the boxes filter."
    return (
        '<link rel="stylesheet" href="../_static/results.css">\n'
        f'<div class="results" data-filters="{",".join(FILTERS)}">\n<table role="table"><caption>{caption}</caption>\n'
        f'<thead role="rowgroup"><tr role="row">{heads}<th role="columnheader" scope="col">remake</th></tr></thead>\n'
        f'<tbody role="rowgroup">\n{rows}\n</tbody></table>\n</div>\n'
        '<script src="../_static/results.js" defer></script>'
    )


def _bounded(outcome: Outcome) -> bool:
    return outcome.against is not None and outcome.against.low == outcome.against.low


def _row(outcome: Outcome) -> str:
    against = outcome.against
    verdict = "–" if against is None else against.verdict
    score = _three(outcome.mean)
    score += f" ± {outcome.spread:.3f}" if outcome.spread is not None else ""
    cost = "–" if outcome.seconds is None else f"{outcome.seconds:.1f} s"
    cost += "" if outcome.added_parameters is None else f" <small>+{outcome.added_parameters:,}</small>"
    values = [
        (_escape(outcome.study if outcome.part is None else f"{outcome.study}, {outcome.part}"), outcome.study),
        (_escape(outcome.task), outcome.task),
        (f"{outcome.size:,}", outcome.size),
        (_escape(outcome.encoder.split("/")[-1]), outcome.encoder),
        (_escape(outcome.label), outcome.label),
        (_escape(outcome.split.removeprefix("ood/")), outcome.split),
        (f"{score} <small>{_escape(outcome.metric)}, {_count(len(outcome.runs), 'replicate')}</small>", outcome.mean),
        (_difference(outcome), None if against is None else against.mean),
        (_verdict(outcome), verdict),
        (cost, outcome.seconds),
    ]
    shown = "".join(
        f'<td role="cell" data-label="{name}"{_value(value, text)}>{text}</td>'
        for name, (text, value) in zip(COLUMNS, values, strict=True)
    )
    remade = f'<td role="cell" class="remake">{_remake(outcome)}</td>'
    return f'<tr role="row" id="{_escape(outcome.name)}">{shown}{remade}</tr>'


def _value(value: object, text: str) -> str:
    """What the script sorts and filters by, where it is not the text itself."""
    sorts = "" if value is None else f"{value:.6g}" if isinstance(value, float) else _escape(str(value))
    return "" if sorts == text else f' data-value="{sorts}"'


def _three(score: float | None) -> str:
    return "–" if score is None else f"{score:.3f}"


def _difference(outcome: Outcome) -> str:
    c = outcome.against
    if c is None:
        return "–"
    if not _bounded(outcome):
        return f"{c.mean:+.3f} <small>no interval</small>"
    usual = c.baseline == "plain" and c.encoder == outcome.encoder
    other = "" if usual else f" <small>to {_escape(_other(outcome))}</small>"
    interval = f"<span>[{c.low:+.3f}, {c.high:+.3f}]</span>"
    return f"{c.mean:+.3f} {interval}{other}{_bar(c.mean, c.low, c.high)}{_second(outcome.second)}"


def _second(c: Comparison | None) -> str:
    """The same difference to a second baseline, where the study has one."""
    if c is None or c.low != c.low:
        return ""
    return (
        f"<small>to {_escape(c.baseline)}: {c.mean:+.3f} <span>[{c.low:+.3f}, {c.high:+.3f}]</span> {c.verdict}</small>"
    )


def _other(outcome: Outcome) -> str:
    where = "" if outcome.against.encoder == outcome.encoder else f", {outcome.against.encoder}"
    return f"{outcome.against.baseline}{where}"


def _bar(mean: float, low: float, high: float) -> str:
    """The interval as a small picture, zero in the middle, cut off at its ends; the numbers beside it say the same."""
    at = [50 + 50 * max(-1.0, min(1.0, v / BAR)) for v in (low, high, mean)]
    return (
        '<svg class="interval" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="M50 0V10"/><path d="M{at[0]:.1f} 5H{at[1]:.1f}"/><path d="M{at[2]:.1f} 1V9"/></svg>'
    )


def _verdict(outcome: Outcome) -> str:
    c = outcome.against
    if c is None:
        return "–"
    clear = c.verdict in ("better", "worse")
    star = " *" if clear and c.p_holm < 1 - c.level else ""
    return f'<span class="{c.verdict.replace(" ", "-")}">{SIGNS[c.verdict]} {c.verdict}{star}</span>'


def _remake(outcome: Outcome) -> str:
    """The commands of an outcome and of its runs, with each run's score, folded."""
    if not outcome.runs:
        return f"{_count(len(outcome.failed), 'run')} failed, see below"
    whole, first = remake_command(outcome), outcome.runs[0]
    parts = [f"<p>Chosen: {_escape(outcome.trial)}.</p>"] if outcome.trial else []
    if whole:
        parts.append(f"<p>All replicates, compared with their records:</p><pre>{_escape(whole)}</pre>")
    parts.append(f"<p>Replicate {_replicate(first)}:</p><pre>{_escape(first.command)}</pre>")
    pairs = zip(outcome.runs, outcome.scores, strict=True)
    scores = ", ".join(f"{_replicate(r)}: {_three(s)}" for r, s in pairs)
    differ = "; the others differ in <code>--split-seed</code> and <code>--seed</code>"
    others = "" if len(outcome.runs) == 1 else differ
    parts.append(f"<p>Replicates (split seed/seed: score){others}.<br>{scores}</p>")
    if outcome.failed:
        parts.append(f"<p>{_count(len(outcome.failed), 'run')} failed and cannot be part of the mean.</p>")
    if outcome.against is not None and outcome.against.note:
        parts.append(f"<p>{_escape(outcome.against.note)}.</p>")
    return f"<details><summary>remake</summary>{''.join(parts)}</details>"


def _replicate(record: Record) -> str:
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
