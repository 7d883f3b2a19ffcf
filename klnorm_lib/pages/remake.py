"""The command that remakes an outcome of a study, all replicates."""

from __future__ import annotations

import shlex

from klnorm_lib import studies
from klnorm_lib.pages.outcomes import Outcome
from klnorm_lib.sweep.remake import name_of


def remake_command(outcome: Outcome) -> str | None:
    """The command that makes an outcome anew and compares it with the records; ``None`` outside a packaged study."""
    if outcome.study not in studies.names() or not outcome.runs:
        return None
    part = ["--part", outcome.part] if outcome.part else []
    return shlex.join(["klnorm", "study", outcome.study, *part, "--remake", str(name_of(outcome.runs[0]))])
