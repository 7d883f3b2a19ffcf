"""``klnorm report``: records as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from klnorm_lib.cli import output
from klnorm_lib.cli.application import app

EVERY = ("task", "size", "encoder", "method", "split_seed", "seed", "metric", "train", "validation", "test", "hash")


@app.command()
def report(
    records: Annotated[
        list[Path] | None, typer.Option(help="Records file; repeatable. All packaged ones and yours if not given.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="First move broken lines to FILE.broken.")] = False,
    every: Annotated[
        bool, typer.Option("--every", help="One row a run, not one row a set of seeds; --json has all.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: output.Json = False,
) -> None:
    """Show the records as a table: every score, and how many seeds there are."""
    from klnorm_lib import pages as tables
    from klnorm_lib import studies, study
    from klnorm_lib.pages.tables import cell
    from klnorm_lib.study import store

    here = Path("records/run.jsonl")
    files = list(records) if records else [*studies.record_files(), *([here] if here.is_file() else [])]
    if not files:
        raise FileNotFoundError("no records yet; `klnorm run` writes records/run.jsonl, --records names another file")
    if repair:
        for path in files:
            count = study.repair(path)
            moved = f"{count} broken line{'s' * (count != 1)} moved to {path}.broken" if count else "nothing was broken"
            output.note(f"{path}: {moved}")
    found = [record for path in dict.fromkeys(map(Path.resolve, files)) for record in study.read_records(path)]
    if as_json:
        output.print_json([record.to_dict() for record in found])
        return
    found = store.distinct(found)
    frame = tables.frame(found)[[*EVERY]] if every else tables.summary(found)
    if markdown:
        typer.echo(tables.to_markdown(frame))
        return
    table = output.table(*map(str, frame.columns))
    for row in frame.itertuples(index=False, name=None):
        table.add_row(*(cell(value) for value in row))
    output.show(table)
    finished = {record.hash for record in found if record.status == "finished"}
    for record in found:
        if record.status == "failed" and record.hash not in finished:
            output.note(f"failed: {record.command}\n  {record.error['message']}")
