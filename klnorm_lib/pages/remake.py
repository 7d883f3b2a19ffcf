"""The command that remakes a whole cell of a study."""

from __future__ import annotations

import shlex

from klnorm_lib import studies
from klnorm_lib.pages.cells import Cell
from klnorm_lib.sweep.remake import cell_of


def cell_command(cell: Cell) -> str | None:
    """The command that makes a cell anew and compares it with the records; ``None`` outside a packaged study."""
    if cell.study not in studies.names() or not cell.runs:
        return None
    part = ["--part", cell.part] if cell.part else []
    return shlex.join(["klnorm", "study", cell.study, *part, "--remake", str(cell_of(cell.runs[0]))])
