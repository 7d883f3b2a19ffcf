"""Records as tables: every run, or one row for each set of runs that differ in their seeds only."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from klnorm_lib.study import Record, read_records

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

    With more than ten runs in a set the points give way to their mean and range. A set of one run says so; no
    interval is given, since the spread of a handful of points is not one.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.status == "finished":
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
    """The results page in markdown: every record of every file, and the command that remakes each.

    ``paths``: records files; by default all that are packaged in ``klnorm_lib/studies``. Failures are listed too.
    Raises ``RecordError`` if a file is broken, so that a book with a broken record does not build.
    """
    files = packaged() if paths is None else [Path(path) for path in paths]
    parts = [
        "# Results",
        "Every number of the book comes from a record of a run. These are all records that ship with it. A row with "
        "one run says nothing about the spread over seeds; means are given only beside the number of runs behind them.",
    ]
    if not files:
        parts.append("No records ship with the book yet.")
    for path in files:
        parts.append(_section(path))
    return "\n\n".join(parts) + "\n"


def packaged() -> list[Path]:
    """The records files that ship with the library, in order of name."""
    from klnorm_lib import studies

    return sorted(Path(next(iter(studies.__path__))).glob("*.jsonl"))


def _section(path: Path) -> str:
    records = read_records(path)
    failed = [record for record in records if record.status == "failed"]
    versions = sorted({f"torch {r.versions['torch']}, transformers {r.versions['transformers']}" for r in records})
    parts = [f"## {path.stem}", to_markdown(summary(records))]
    if records:
        parts.append(f"Made with {'; '.join(versions)}.")
        runs = "\n\n".join(_remake(record) for record in records)
        parts.append(
            f":::{{dropdown}} Every run of {path.stem} ({len(records)}), with the command that remakes it\n"
            f"```bash\n{runs}\n```\n:::"
        )
    if failed:
        parts.append(f"Runs that failed: {len(failed)}.")
    return "\n\n".join(part for part in parts if part)


def _remake(record: Record) -> str:
    """One run as a shell comment with its result, and the command below it."""
    primary = record.task["primary_metric"]
    if record.status == "failed":
        return f"# {record.hash[:12]}  failed: {record.error['message'].splitlines()[0]}\n{record.command}"
    scores = [f"test {primary} {cell(record.test.get(primary))}"]
    scores += [f"{name} {cell(values.get(primary))}" for name, values in record.ood.items()]
    return f"# {record.hash[:12]}  {', '.join(scores)}\n{record.command}"
