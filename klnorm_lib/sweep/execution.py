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
from klnorm_lib.sweep.design import Grid, Item
from klnorm_lib.sweep.grid import load
from klnorm_lib.sweep.index import RecordIndex, identity
from klnorm_lib.sweep.progress import StudyProgress
from klnorm_lib.sweep.worker import Job
from klnorm_lib.sweep.workers import Workers, distinct


@dataclass(frozen=True)
class Failure:
    """A run that failed, and why."""

    run: Run
    message: str

    def __str__(self) -> str:
        return f"{self.run.command()}\n  {self.message}"


@dataclass
class Summary:
    """What came of a study: runs ``planned``, ``made`` now, ``found`` recorded already, and the failures.

    ``left_out``: settings and arms that could not be tuned, and why.
    """

    records: Path | None
    planned: int = 0
    made: int = 0
    found: int = 0
    failures: list[Failure] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether everything planned is finished."""
        return not self.failures and not self.left_out

    def add(self, other: Summary) -> None:
        """Count another stage in."""
        self.planned += other.planned
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

    def workers(self) -> Workers:
        """The workers, for a ``with`` block."""
        return Workers(self.engine, self.jobs, self.threads, self.scheduler, self.retry, self.notebooks)


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
    ``more``: the other fields of ``Options``. A run that fails is recorded and named in the summary, and the others go
    on. Raises ``StudyError`` for a study or an engine that there is not, or if workers die one after another.
    """
    grid = name if isinstance(name, Grid) else load(name)
    parts = None if parts is None else list(parts)
    path = Path("records") / f"{grid.name}.jsonl" if records is None else Path(records)
    options = Options(engine=engine, jobs=jobs, progress=progress, **more)
    index, total = RecordIndex(path), Summary(path)
    with options.workers() as workers:
        total.add(_stage(workers, grid.tuning(parts), index, "tuning", options))
        items = grid.final(index.records, parts, total.left_out)
        total.add(_stage(workers, items, index, "final", options))
    return total


def execute(
    items: Iterable[Item | Run], records: str | Path | RecordIndex | None, options: Options | None = None
) -> Summary:
    """Carry out any list of runs in the same way; with a ``RecordIndex`` of no file the records stay in it."""
    options = options or Options()
    index = records if isinstance(records, RecordIndex) else RecordIndex(records)
    found = [item if isinstance(item, Item) else Item(item, None) for item in items]
    with options.workers() as workers:
        return _stage(workers, found, index, "runs", options)


def _stage(workers: Workers, items: Iterable[Item], index: RecordIndex, stage: str, options: Options) -> Summary:
    """One stage; a run that several arms have in common is done once and recorded under each of their names."""
    alike = list(distinct(items, identity).values())
    summary, started = Summary(index.path, planned=len(alike)), time.monotonic()
    jobs = [Job(number, first.run, first.study, index.lookup(first.run)) for number, (first, *_) in enumerate(alike)]
    if not jobs:
        return summary
    runs = [job.run for job in jobs]
    with StudyProgress(stage, runs, options.jobs, index.seconds, options.progress) as shown:
        for outcome in workers.outcomes(jobs, shown.say):
            run = runs[outcome.number]
            if outcome.record is not None:
                index.append(outcome.record)
            if outcome.hash is not None:
                for item in alike[outcome.number]:
                    index.adopt(outcome.hash, item.study)
            summary.made += outcome.new and outcome.status == "finished"
            summary.found += not outcome.new and outcome.status == "finished"
            if outcome.status == "failed":
                message = outcome.message if outcome.new else index.failure(outcome.hash)
                summary.failures.append(Failure(run, message))
                shown.say(f"failed: {summary.failures[-1]}")
            shown.done(run, outcome.status == "failed")
    summary.seconds = time.monotonic() - started
    return summary
