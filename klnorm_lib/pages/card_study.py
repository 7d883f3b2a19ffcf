"""Measure what the cards of the encoders say: ``python -m klnorm_lib.pages.card_study PLAN --records FILE --jobs N``.

Runs that the file holds already are not done again, so an interrupted study goes on where it stopped. The settings are
in ``klnorm_lib.pages.card_plan``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from klnorm_lib.pages.card_plan import PLANS
from klnorm_lib.study import Run
from klnorm_lib.sweep.execution import Options, execute


def study(runs: Iterable[Run], records: Path, jobs: int) -> list[str]:
    """All runs that ``records`` lacks, ``jobs`` at a time, one thread each; returns the failures, in words."""
    summary = execute(runs, records, Options(jobs=jobs))
    told = f"{summary.asked} runs, {summary.found} of them recorded already, {len(summary.failures)} failed"
    print(told, file=sys.stderr)
    return [str(failure) for failure in summary.failures]


def main(
    plan: Annotated[str, typer.Argument(help=f"One of {', '.join(PLANS)}.")],
    records: Annotated[Path, typer.Option(help="Records file to go on with.")],
    jobs: Annotated[int, typer.Option(help="Processes at a time.")] = 1,
    only: Annotated[list[str] | None, typer.Option(metavar="ENCODER", help="Only these arms; repeatable.")] = None,
    task: Annotated[list[str] | None, typer.Option(metavar="TASK", help="Only these tasks; repeatable.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where the card's encoder lies before it is built in.")] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Print the commands and stop.")] = False,
) -> None:
    """Measure what the cards of the encoders say."""
    if plan not in PLANS:
        raise typer.BadParameter(f"no plan {plan!r}; there are {', '.join(PLANS)}")
    chosen = PLANS[plan]
    runs = [r for r in chosen.runs() if (not only or r.encoder in only) and (not task or r.task in task)]
    if not runs:
        raise typer.BadParameter("nothing of the plan is left; check --only and --task")
    if folder is not None:
        runs = [replace(r, encoder=_placed(r.encoder, chosen.encoder, folder)) for r in runs]
    if dry:
        print("\n".join(r.command() for r in runs))
        return
    failures = study(runs, records, jobs)
    if failures:
        print("\n".join(["failed:", *failures]), file=sys.stderr)
        raise typer.Exit(1)


def _placed(name: str, wanted: str, folder: Path) -> str:
    bare, colon, random = name.partition(":")
    return f"{folder}{colon}{random}" if bare == wanted else name


if __name__ == "__main__":
    typer.run(main)
