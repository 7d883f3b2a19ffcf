"""What a worker process of a study does: carry out runs, one after another, and hand the records back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from klnorm_lib.study import cache, runner, store
from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import Run
from klnorm_lib.sweep import packing
from klnorm_lib.sweep.notebook import in_notebook

_kept_open: list[Any] = []  # what this process keeps open until it ends


@dataclass(frozen=True)
class Job:
    """One run to do; ``recorded``: hash and status of the records that may be of this very run."""

    number: int
    run: Run
    study: Mapping[str, Any] | None = None
    recorded: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerOptions:
    """How runs are carried out: torch threads, failed ones again or not, the cards, in notebooks or not."""

    threads: int = 1
    retry: bool = False
    packing: packing.Packing | None = None
    notebooks: str | None = None
    own_process: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of a job: a new record (``finished`` or ``failed``), or the ``hash`` of one that is there."""

    number: int
    status: str
    hash: str | None = None
    record: Record | None = None
    message: str = ""
    new: bool = True


def carry_out(jobs: Sequence[Job], options: WorkerOptions) -> list[Outcome]:
    """Do the runs of a batch; a run that fails gives its failure, and the next is done all the same."""
    with _ready(options):
        return [_one(job, options) for job in jobs]


@contextmanager
def _ready(options: WorkerOptions) -> Iterator[None]:
    """Threads as configured, on every engine; in a process of its own the card and kept data as well."""
    if options.own_process:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if options.packing is not None:
            packing.use_card(options.packing)
        if not _kept_open:  # until the process ends
            _kept_open.append(cache.keeping())
            _kept_open[0].__enter__()
    with with_threads(options.threads):
        yield


@contextmanager
def with_threads(threads: int) -> Iterator[None]:
    """Within this block torch and BLAS compute with so many threads: a run's numbers may depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def _one(job: Job, options: WorkerOptions) -> Outcome:
    try:
        hashes = runner.run_hashes(job.run)
        hash = next((one for one in hashes if one in job.recorded), hashes[0])
        status = job.recorded.get(hash)
        if status == "finished" or (status == "failed" and not options.retry):
            return Outcome(job.number, status, hash, new=False)
        if options.notebooks is not None:
            record = in_notebook(job.run, job.study, options.threads, options.notebooks, hash)
        else:
            record = recorded(job.run, job.study)
    except Exception as error:  # before there was anything to record: an unknown task, too few rows
        return Outcome(job.number, "failed", message=f"{type(error).__name__}: {error}")
    error = record.error
    return Outcome(
        job.number,
        record.status,
        record.hash,
        record,
        "" if error is None else f"{error['type']}: {error['message']}",
    )


def recorded(run: Run, study: Mapping[str, Any] | None) -> Record:
    """The record of a run, of a failed one too; raises what kept it from starting."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        try:
            return runner.run(run, path, progress=False, study=study)
        except Exception:
            if not path.is_file():
                raise
            return store.read_records(path)[-1]


def lost(job: Job, options: WorkerOptions, reason: str) -> Outcome:
    """The failure of a run whose worker died under it each time, recorded if its data can be loaded here."""
    message = f"its process died each time it was tried; out of memory? ({reason})"
    try:
        with with_threads(options.threads):
            record = runner.failed(job.run, "WorkerDied", message, job.study)
    except Exception:
        return Outcome(job.number, "failed", message=message)
    return Outcome(job.number, "failed", record.hash, record, f"WorkerDied: {message}")
