"""The commands that remake a result: of one run, and of a whole cell of a study."""

from __future__ import annotations

import shlex

from klnorm_lib import studies
from klnorm_lib.pages.cells import Cell
from klnorm_lib.sweep.remake import cell_of


def in_words(cell: Cell) -> str:
    """Which cell it is, in a line."""
    split = "" if cell.split == "test" else f", tested on {cell.split.removeprefix('ood/')}"
    part = f" ({cell.part})" if cell.part else ""
    return f"{cell.study}{part}: {cell.label} on {cell.task}, {cell.size} labels, {cell.encoder}{split}"


def run_commands(cell: Cell) -> list[str]:
    """One ``klnorm run`` for each run of a cell, in the order of its draws, each below its record and its score."""
    told = [
        f"# {r.hash[:12]}  " + ("–" if s is None else f"{s:.3f}") for r, s in zip(cell.runs, cell.scores, strict=True)
    ]
    return [f"{line}\n{record.command}" for line, record in zip(told, cell.runs, strict=True)]


def cell_command(cell: Cell) -> str | None:
    """The command that makes a cell anew and compares it with the records; ``None`` outside a packaged study."""
    if cell.study not in studies.names() or not cell.runs:
        return None
    part = ["--part", cell.part] if cell.part else []
    return shlex.join(["klnorm", "study", cell.study, *part, "--remake", str(cell_of(cell.runs[0]))])
