"""Measure what the cards of the encoders say: ``python -m klnorm_lib.report.card_study PLAN --records FILE --jobs N``.

Runs that the file holds already are not done again, so an interrupted study goes on where it stopped. The settings are
in ``klnorm_lib.report.card_plan``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer

from klnorm_lib.report.card_plan import FROZEN, PLANS
from klnorm_lib.study import Record, Run, append, read_records, run
from klnorm_lib.study.frozen import FEATURISERS


def key(asked: Run) -> str:
    """What tells one run of a study from another: its fields and the weights, which may have been replaced since."""
    from klnorm_lib import encoders

    weights = None
    if asked.encoder not in FEATURISERS:
        found = encoders.resolve(asked.encoder, asked.encoder_source)
        weights = found.sha256 or found.revision
    return _key(asked.to_dict(), weights)


def _key(fields: dict, weights: str | None) -> str:
    return json.dumps([fields, weights], sort_keys=True)


def done(records: Path) -> set[str]:
    """The keys of the finished runs in a file; none if there is no file yet."""
    if not records.is_file():
        return set()
    found: list[Record] = [r for r in read_records(records) if r.status == "finished"]
    return {_key(r.run, r.encoder["sha256"] or r.encoder["revision"]) for r in found}


def jobs_of(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs in parcels for one process: one that trains goes alone, frozen ones of a task and encoder together.

    The features of a test set are thus made once, and stay in memory for the next seed and size.
    """
    parcels: list[list[Run]] = []
    for (_, _, method), group in groupby(runs, key=lambda r: (r.task, r.encoder, r.method)):
        members = list(group)
        parcels += [members] if method == FROZEN else [[member] for member in members]
    return parcels


def carry_out(parcel: list[Run], records: str) -> list[str]:
    """Do the runs of a parcel and append their records; a failure is told in words and does not stop the others."""
    import torch

    torch.set_num_threads(1)
    told = []
    for asked in parcel:
        try:
            if asked.method == FROZEN:  # quick and many: looking through the file each time would take longer
                append(records, run(asked, progress=False))
            else:
                run(asked, records, progress=False)
        except Exception as error:
            told.append(f"{asked.command()}\n  {type(error).__name__}: {error}")
    return told


def study(runs: list[Run], records: Path, jobs: int) -> list[str]:
    """All runs that ``records`` lacks, ``jobs`` at a time, one thread each; returns the failures, in words."""
    known = done(records)
    missing = [asked for asked in runs if key(asked) not in known]
    print(f"{len(runs)} runs, {len(runs) - len(missing)} of them recorded already", file=sys.stderr)
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes start afresh and read it
    parcels, failures, count, started = jobs_of(missing), [], 0, time.monotonic()
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        waiting = {pool.submit(carry_out, parcel, str(records)): parcel for parcel in parcels}
        for future in as_completed(waiting):
            failures += future.result()
            count += len(waiting[future])
            print(f"{count} of {len(missing)} after {time.monotonic() - started:.0f} s", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; what is finished is recorded, the same command goes on", file=sys.stderr)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return failures


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
