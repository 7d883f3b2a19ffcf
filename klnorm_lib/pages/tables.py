"""Records as tables: every run, one row for each set of runs that differ in their seeds only, or every cell."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from klnorm_lib.pages.cells import TEST, Cell, cells
from klnorm_lib.pages.counts import runs_behind
from klnorm_lib.pages.remake import in_words, run_commands
from klnorm_lib.study import Record
from klnorm_lib.sweep.membership import by_study

FEW = 10  # up to so many seeds, every point is written out
SEEDS = ("seed", "split_seed")


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a record: what was run, the primary metric on train, validation, test and each out-of-domain set."""
    return pd.DataFrame([_row(record) for record in records])


def _row(record: Record) -> dict[str, Any]:
    primary = record.task["primary_metric"]
    return {
        "task": record.task["name"],
        "size": record.rows.get("train", 0) + record.rows.get("validation", 0),
        "encoder": record.encoder["name"],
        "method": method_label(record),
        "study": record.study["name"] if record.study else None,
        "arm": record.study["arm"] if record.study else None,
        "stage": record.study["stage"] if record.study else None,
        "split_seed": record.run["split_seed"],
        "seed": record.run["seed"],
        "status": record.status,
        "metric": primary,
        "train": record.train.get(primary),
        "validation": record.validation.get(primary),
        "test": record.test.get(primary),
        **{f"ood/{name}": scores.get(primary) for name, scores in record.ood.items()},
        "ece": record.calibration["test"].get("ece"),
        "added_parameters": record.method["added_parameters"],
        "seconds": record.time["total_seconds"],
        "hash": record.hash[:12],
    }


def method_label(record: Record) -> str:
    """The method with the hyperparameters that were given, the others being at their defaults."""
    given = ", ".join(f"{key}={value}" for key, value in record.run["method_args"].items())
    return f"{record.method['name']}({given})" if given else record.method["name"]


def summary(records: Iterable[Record]) -> pd.DataFrame:
    """One row for each set of finished runs that differ in seeds only, with the number of seeds and every test score.

    Runs that only served to tune an arm of a study are no results, and are left out. With more than ten runs in a set
    the points give way to their mean and range. A set of one run says so; no interval is given, since the spread of a
    handful of points is not one.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.status == "finished" and not (record.study and record.study["stage"] == "tuning"):
            fields = {key: value for key, value in record.run.items() if key not in SEEDS}
            rows = {k: v for k, v in record.task["checksums"].items() if k not in ("train", "validation")}
            decides = [fields, rows, record.encoder["sha256"] or record.encoder["revision"], record.method["version"]]
            key = json.dumps(decides, sort_keys=True)
            groups.setdefault(key, []).append(record)
    return pd.DataFrame([_group(members) for members in groups.values()])


def _group(records: Sequence[Record]) -> dict[str, Any]:
    primary = records[0].task["primary_metric"]
    first = _row(records[0])
    points = [r.test.get(primary) for r in sorted(records, key=lambda r: (r.run["split_seed"], r.run["seed"]))]
    values = [p for p in points if p is not None]
    if len(points) <= FEW:
        shown = "  ".join("–" if p is None else f"{p:.3f}" for p in points)
    else:
        shown = f"{min(values):.3f} to {max(values):.3f}" if values else "–"
    return {
        "task": first["task"],
        "size": first["size"],
        "encoder": first["encoder"],
        "method": first["method"],
        "steps": records[0].run["steps"],
        "learning rate": f"{records[0].run['learning_rate']:g}",
        "metric": primary,
        "runs": len(points),
        "test, every run" if len(points) <= FEW else "test, range": shown,
        "mean": sum(values) / len(values) if len(values) > 1 else None,
    }


def to_markdown(table: pd.DataFrame) -> str:
    """A table as markdown; numbers with three decimals, numeric columns set right."""
    if table.empty:
        return "No records yet.\n"
    right = [pd.api.types.is_numeric_dtype(table[column]) for column in table.columns]
    lines = [_line(map(str, table.columns)), _line("---:" if r else ":---" for r in right)]
    lines += [_line(cell(value) for value in row) for row in table.itertuples(index=False, name=None)]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in cells) + " |"


def cell(value: Any) -> str:
    """One value as text: a dash for nothing, three decimals for a fraction."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def to_html(table: pd.DataFrame) -> str:
    """A table as HTML that scrolls sideways on a narrow screen."""
    if table.empty:
        return "<p>No records yet.</p>"
    head = "".join(f"<th scope='col'>{html.escape(str(column))}</th>" for column in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell(value))}</td>" for value in row) + "</tr>"
        for row in table.itertuples(index=False, name=None)
    )
    return f"<div style='overflow-x:auto'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def results_page(paths: Iterable[str | Path] | None = None) -> str:
    """Every result in markdown: study by study, cell by cell, with the commands that remake it.

    ``paths``: records files; by default all that are packaged in ``klnorm_lib/studies``. Failures are listed too. Runs
    that only tuned an arm are counted and not shown; what was chosen stands beside the arm. The page of the book is
    made of the same cells, see ``klnorm_lib.pages.results_html``. Raises ``RecordError`` if a file is broken.
    """
    studies = by_study(paths)
    parts = ["# Results", READING]
    if not studies:
        return "\n\n".join([*parts, "No records yet."]) + "\n"
    parts += ["## Runs", to_markdown(runs_behind(studies))]
    for name, records in studies.items():
        parts += [f"## {name}", _section(name, records)]
    return "\n\n".join(parts) + "\n"


READING = """\
Every number comes from records of runs. A row is one arm of a study: a method on one task, with so many labels and one
encoder. The score is the mean over its draws, with their standard deviation; a draw is a split seed and a model seed.
The difference to the study's baseline is paired draw by draw, with its 95 % interval, and the interval gives the
verdict. Hyperparameters were chosen on validation rows, by runs that are not shown."""


def _section(name: str, records: list[Record]) -> str:
    found = cells(records, name)
    versions = sorted({f"torch {r.versions['torch']}, transformers {r.versions['transformers']}" for r in records})
    commands = [f"# {in_words(cell)}\n" + "\n".join(run_commands(cell)) for cell in found if cell.split == TEST]
    failed = {r.hash: r for r in records if r.status == "failed"}.values()
    told = [to_markdown(cell_table(found)), f"Made with {'; '.join(versions)}.", _folded(f"Remake {name}", commands)]
    if failed:
        lines = [f"# {r.hash[:12]}  failed: {r.error['message'].splitlines()[0]}\n{r.command}" for r in failed]
        told.append(_folded(f"Runs that failed: {len(lines)}", lines))
    return "\n\n".join(told)


def _folded(title: str, commands: list[str]) -> str:
    lines = "\n\n".join(commands)
    return f":::{{dropdown}} {title}\n```bash\n{lines}\n```\n:::"


def cell_table(found: Iterable[Cell]) -> pd.DataFrame:
    """Cells as a table: the score with its spread and number of draws, and the paired difference with its verdict."""
    return pd.DataFrame(
        [
            {
                "task": c.task,
                "labels": c.size,
                "encoder": c.encoder,
                "method": c.label,
                "tested on": c.split.removeprefix("ood/"),
                "metric": c.metric,
                "draws": len(c.runs),
                "mean": c.mean,
                "sd": c.spread,
                "difference": "–" if c.against is None else str(c.against),
                "chosen": c.trial or "–",
            }
            for c in found
        ]
    )
