"""``klnorm mirror``: tasks copied from the hub, for machines without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from klnorm_lib.cli import completion, output
from klnorm_lib.cli.application import app


@app.command()
def mirror(
    names: Annotated[
        list[str],
        typer.Argument(metavar="TASK...", help="Tasks to fetch from the hub.", autocompletion=completion.task),
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder to fill; name it in KLNORM_MIRROR afterwards.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Fetch again what is there already.")] = False,
    as_json: output.Json = False,
) -> None:
    """Copy tasks from the hub into a folder for machines without a network."""
    from klnorm_lib.tasks.fill import fill_mirror

    err = output.stderr()
    with err.status(f"fetching {', '.join(names)}"):
        done = fill_mirror(names, to, overwrite=overwrite, progress=lambda line: err.print(line, soft_wrap=True))
    if as_json:
        output.print_json({"folder": str(to), "sets": done})
    else:
        err.print(f"{to} is ready; set KLNORM_MIRROR={to}", soft_wrap=True)
