"""Carry out a study: many runs, several at a time, each recorded as it ends, none of them twice.

The calling process alone writes to the records file; worker processes hand records back. Killed in the middle, at
whichever end, a study loses what was under way and nothing else: the same command goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from klnorm_lib.study.spec import Run
from klnorm_lib.sweep.grid import Grid, Item, load
from klnorm_lib.sweep.index import Ledger, identity
from klnorm_lib.sweep.progress import StudyProgress
from klnorm_lib.sweep.worker import Job
from klnorm_lib.sweep.workers import Crew, distinct


@dataclass(frozen=True)
class Failure:
    """A run that failed, and why."""

    run: Run
    message: str

    def __str__(self) -> str:
        return f"{self.run.command()}\n  {self.message}"


@dataclass
class Summary:
    """What came of a study: runs ``asked`` for, ``made`` now, ``found`` recorded already, and the failures.

    ``left_out``: cells that could not be tuned, and why.
    """

    records: Path | None
    asked: int = 0
    made: int = 0
    found: int = 0
    failures: list[Failure] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether everything asked for is finished."""
        return not self.failures and not self.left_out

    def add(self, other: Summary) -> None:
        """Count another stage in."""
        self.asked += other.asked
        self.made += other.made
        self.found += other.found
        self.failures += other.failures
        self.seconds += other.seconds


@dataclass(frozen=True)
class Options:
    """How runs are carried out.

    ``engine`` (local, dask, ray) does ``jobs`` runs at a time, each with ``threads`` torch threads, on the cluster at
    ``scheduler`` or a small one of its own. ``retry``: runs recorded as failed are tried again. ``notebooks``: a
    folder for an executed notebook of each run, or ``None``.
    """

    engine: str = "local"
    jobs: int = 1
    threads: int = 1
    scheduler: str | None = None
    retry: bool = False
    notebooks: Path | None = None
    progress: bool = True

    def crew(self) -> Crew:
        """The workers, for a ``with`` block."""
        return Crew(self.engine, self.jobs, self.threads, self.scheduler, self.retry, self.notebooks)


def sweep(
    name: str | Path | Grid,
    records: str | Path | None = None,
    engine: str = "local",
    jobs: int = 1,
    parts: Iterable[str] | None = None,
    progress: bool = True,
    **more: Any,
) -> Summary:
    """Carry out a study: the tuning runs, then, with what they choose, the final ones; recorded ones are not repeated.

    ``name``: a packaged study, a YAML file or a ``Grid``; ``records``: the file to append to (``records/NAME.jsonl``).
    ``more``: the other fields of ``Options``. A run that fails is recorded and told in the summary, and the others go
    on. Raises ``StudyError`` for a study or an engine that there is not, or if workers die one after another.
    """
    grid = name if isinstance(name, Grid) else load(name)
    parts = None if parts is None else list(parts)
    path = Path("records") / f"{grid.name}.jsonl" if records is None else Path(records)
    options = Options(engine=engine, jobs=jobs, progress=progress, **more)
    ledger, total = Ledger(path), Summary(path)
    with options.crew() as crew:
        total.add(_stage(crew, grid.tuning(parts), ledger, "tuning", options))
        items = grid.final(ledger.records, parts, total.left_out)
        total.add(_stage(crew, items, ledger, "final", options))
    return total


def execute(
    items: Iterable[Item | Run], records: str | Path | Ledger | None, options: Options | None = None
) -> Summary:
    """Carry out any list of runs in the same way; with a ``Ledger`` of no file the records stay in it."""
    options = options or Options()
    ledger = records if isinstance(records, Ledger) else Ledger(records)
    found = [item if isinstance(item, Item) else Item(item, None) for item in items]
    with options.crew() as crew:
        return _stage(crew, found, ledger, "runs", options)


def _stage(crew: Crew, items: Iterable[Item], ledger: Ledger, stage: str, options: Options) -> Summary:
    """One stage; a run that several arms have in common is done once and recorded under each of their names."""
    alike = list(distinct(items, identity).values())
    summary, started = Summary(ledger.path, asked=len(alike)), time.monotonic()
    jobs = [Job(number, first.run, first.study, ledger.known(first.run)) for number, (first, *_) in enumerate(alike)]
    if not jobs:
        return summary
    runs = [job.run for job in jobs]
    with StudyProgress(stage, runs, options.jobs, ledger.seconds, options.progress) as shown:
        for outcome in crew.outcomes(jobs, shown.say):
            run = runs[outcome.number]
            if outcome.record is not None:
                ledger.append(outcome.record)
            if outcome.hash is not None:
                for item in alike[outcome.number]:
                    ledger.adopt(outcome.hash, item.study)
            summary.made += outcome.new and outcome.status == "finished"
            summary.found += not outcome.new and outcome.status == "finished"
            if outcome.status == "failed":
                message = outcome.message if outcome.new else ledger.failure(outcome.hash)
                summary.failures.append(Failure(run, message))
                shown.say(f"failed: {summary.failures[-1]}")
            shown.done(run, outcome.status == "failed")
    summary.seconds = time.monotonic() - started
    return summary
