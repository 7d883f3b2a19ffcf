"""What every command prints with: JSON or a table on standard output, everything else on standard error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def _as_json(ctx: typer.Context, value: bool) -> bool:
    ctx.meta["json"] = value  # an error is reported in JSON as well
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.", callback=_as_json)]


def print_json(value: Any) -> None:
    """Print ``value`` as JSON; what JSON does not know is printed as its string."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def table(*columns: str) -> Table:
    """An empty table without lines."""
    made = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def show(made: Table) -> None:
    """Print a table."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width; the default of 80 would break every row
    console.print(made)


def show_pairs(title: str, rows: Mapping[str, Any]) -> None:
    """Print names and values, one pair a row; what is itself a mapping is left out."""
    made = table(title, "")
    for name, value in rows.items():
        if not isinstance(value, dict):
            made.add_row(name, f"{value:,}" if type(value) is int and name != "seed" else str(value))
    show(made)


def stderr() -> Console:
    """The console for notes, progress and errors."""
    return Console(stderr=True, highlight=False)


def note(text: str) -> None:
    """Print a line on standard error as it is."""
    stderr().print(text, markup=False, soft_wrap=True)
