"""How many runs stand behind the book: by study, failures included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from klnorm_lib.study import Record

COLUMNS = ("study", "tasks", "runs", "to tune", "final", "failed", "hours", "machine")


def runs_behind(studies: Mapping[str, Iterable[Record]]) -> pd.DataFrame:
    """One row a study and one for all together; a run that several studies or arms share counts once in each row.

    ``studies``: name to records, see ``klnorm_lib.sweep.membership.by_study``. Columns: study, tasks, runs (all),
    to tune (runs that only chose hyperparameters), final, failed, hours (of computing, summed over the runs), machine.
    """
    studies = {name: list(records) for name, records in studies.items()}
    rows = [_row(name, records) for name, records in studies.items()]
    if len(rows) > 1:
        rows.append(_row("all", [r for records in studies.values() for r in records]))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(name: str, records: list[Record]) -> dict:
    final = {r.hash for r in records if not r.study or r.study["stage"] == "final"}
    runs = {r.hash: r for r in records}
    seconds = sum(r.time.get("total_seconds") or 0.0 for r in runs.values())
    return {
        "study": name,
        "tasks": len({r.task["name"] for r in records}),
        "runs": len(runs),
        "to tune": len(runs) - len(final),
        "final": len(final),
        "failed": sum(r.status == "failed" for r in runs.values()),
        "hours": f"{seconds / 3600:.1f}",
        "machine": ", ".join(sorted({r.hardware.get("gpu") or r.hardware["cpu"] for r in runs.values()})),
    }
