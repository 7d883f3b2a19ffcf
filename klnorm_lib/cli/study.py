"""The work behind ``klnorm study``: run a grid, list it, or do a committed cell again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from klnorm_lib.study.errors import StudyError
from klnorm_lib.sweep.execution import Options, Summary, sweep
from klnorm_lib.sweep.grid import Grid
from klnorm_lib.sweep.progress import spell
from klnorm_lib.sweep.remake import Cell, Remade, remake


def carry_out(grid: Grid, records: Path, parts: list[str] | None, options: Options) -> Summary:
    """All runs of a study that ``records`` lacks."""
    more = {name: getattr(options, name) for name in ("threads", "scheduler", "retry", "notebooks")}
    return sweep(grid, records, options.engine, options.jobs, parts, options.progress, **more)


def again(name: str, cell: str, draws: int | None, options: Options, parts: list[str] | None = None) -> Remade:
    """A committed cell, done again and compared; a cell is of one part at most."""
    if parts is not None and len(parts) > 1:
        raise StudyError(f"a cell stands in one part; give --part once with --remake, not {', '.join(parts)}")
    return remake(name, Cell.parse(cell), draws, options, parts[0] if parts else None)[0]


def plan(grid: Grid, records: Path, parts: list[str] | None) -> list[dict[str, Any]]:
    """Every run of a study: stage, arm, whether it seems recorded (by its name alone), and its command.

    Final runs of which the trial is not chosen yet have no command.
    """
    from klnorm_lib.study.errors import StudyError
    from klnorm_lib.sweep.index import Ledger

    ledger = Ledger(records)
    items = grid.tuning(parts)
    with suppress(StudyError):  # the tuning runs come first
        items = items + grid.final(ledger.records, parts)
    return [
        {
            "stage": item.study["stage"],
            "part": item.study["part"],
            "arm": item.study["arm"],
            "recorded": "finished" in ledger.known(item.run).values(),
            "command": item.run.command(records=str(records)),
        }
        for item in items
    ]


def summary_lines(summary: Summary) -> list[str]:
    """What came of a study, in words, and every failure with its command."""
    lines = [
        f"{summary.asked} runs: {summary.made} made in {spell(summary.seconds)}, {summary.found} recorded before, "
        f"{len(summary.failures)} failed; records in {summary.records}"
    ]
    lines += [f"failed: {failure}" for failure in summary.failures]
    return lines + [f"left out: {cell}" for cell in summary.left_out]


def summary_dict(summary: Summary) -> dict[str, Any]:
    """The same for ``--json``."""
    failures = [{"command": f.run.command(), "message": f.message} for f in summary.failures]
    told = {"asked": summary.asked, "made": summary.made, "recorded_before": summary.found, "failures": failures}
    told["left_out"] = summary.left_out
    return {**told, "seconds": round(summary.seconds, 3), "records": str(summary.records)}


def remade_dict(remade: Remade) -> dict[str, Any]:
    """A cell done again, for ``--json``."""
    return {
        "cell": str(remade.cell),
        "metric": remade.metric,
        "draws": [list(draw) for draw in remade.draws],
        "committed": list(remade.committed),
        "remade": list(remade.remade),
        "difference": remade.difference,
        "tolerance": remade.tolerance,
        "same_machine": remade.same,
        "other": list(remade.other),
        "holds": remade.holds,
    }


def verdict(remade: Remade) -> str:
    """Whether the committed numbers hold, in a sentence."""
    if remade.same:
        known = "the machine, its threads and the versions are those of the records: the numbers must be equal"
        found = "they are" if remade.holds else f"they differ by {remade.difference:.4g}"
    else:
        known = f"not as it was: {', '.join(remade.other)}; the means may differ by {remade.tolerance:.4f}"
        found = f"they differ by {remade.difference:.4f}: {'the cell holds' if remade.holds else 'too much'}"
    return f"{remade.cell}: {known}, and {found}"
