"""The loop that hands runs to workers, takes their records, and does again what a dead worker had under way."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

from klnorm_lib.study.errors import StudyError
from klnorm_lib.study.fit_protocol import fit_of
from klnorm_lib.study.spec import Run
from klnorm_lib.sweep import engines
from klnorm_lib.sweep.packing import Packing, visible_cards
from klnorm_lib.sweep.worker import Job, Outcome, WorkerOptions, carry_out, lost

ALONE = 2  # deaths of workers that had this one run to do, before it is called a failure
BATCH = 8  # quick runs that are sent together, at most
IN_A_ROW = 12  # deaths without a single result, before the engine is called broken


class Workers:
    """An engine at work for the time of a ``with`` block."""

    def __init__(
        self, engine: str, jobs: int, threads: int, scheduler: str | None, retry: bool, notebooks: Path | None
    ):
        self._start = partial(engines.start, engine, jobs, threads, scheduler)
        self._remote = scheduler is not None
        self.options = WorkerOptions(threads, retry, notebooks=None if notebooks is None else str(notebooks))
        self.width = jobs

    def __enter__(self) -> Workers:
        with ExitStack() as stack:
            self._engine = stack.enter_context(self._start())
            cards = None if self._remote else visible_cards()
            packing = None
            if self._engine.own_process and cards != ():
                folder = Path(tempfile.gettempdir()) / f"klnorm-{uuid.uuid4().hex}"
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                packing = Packing(self.width, str(folder), cards)
            self.options = replace(self.options, packing=packing, own_process=self._engine.own_process)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def outcomes(self, jobs: Sequence[Job], say=print) -> Iterator[Outcome]:
        """What becomes of every job, as it comes.

        When a worker dies, what was handed out is handed out again, one run at a time: a run that kills its worker
        twice when it is alone is given back as failed. Raises ``StudyError`` when workers die again and again and
        nothing comes back.
        """
        waiting = {job.number: job for job in jobs}
        suspects: deque[Job] = deque()
        deaths, in_a_row = Counter(), 0
        while waiting:
            alone = [suspects.popleft()] if suspects else None
            queue = [alone] if alone else batches(list(waiting.values()), 1 if self.options.notebooks else self.width)
            handed: list[Job] = []
            try:
                for outcome in self._stream(queue, handed):
                    in_a_row = 0
                    del waiting[outcome.number]
                    yield outcome
            except Exception as error:  # a run's own errors come back as outcomes: this is the engine's
                in_a_row += 1
                if in_a_row > IN_A_ROW:
                    raise StudyError(
                        f"the {self._engine.name} engine lost its workers {in_a_row} times and nothing came back; the "
                        f"last error: {type(error).__name__}: {str(error)[:500]}. What is finished is recorded"
                    ) from error
                under_way = [job for job in handed if job.number in waiting]
                if alone and under_way:
                    job = under_way[0]
                    deaths[job.number] += 1
                    if deaths[job.number] >= ALONE:
                        del waiting[job.number]
                        yield lost(job, self.options, f"{type(error).__name__}: {str(error)[:300]}")
                        continue
                say(f"a worker died ({type(error).__name__}); {len(under_way)} under way are done again, one at a time")
                suspects.extend(under_way)

    def _stream(self, queue: Sequence[Sequence[Job]], handed: list[Job]) -> Iterator[Outcome]:
        def handing() -> Iterator[Sequence[Job]]:
            for batch in queue:
                handed.extend(batch)
                yield batch

        for outcomes in self._engine.stream(partial(carry_out, options=self.options), handing()):
            yield from outcomes


def order(run: Run) -> tuple:
    """Runs that share rows come together; where a fit shares features, those of one encoder."""
    rows = (run.size or 0, run.split_seed)
    near = (1, run.encoder, *rows) if fit_of(run.method).shares_features else (0, *rows, run.encoder)
    return (run.task or run.data or "", *near)


def batches(jobs: Sequence[Job], width: int) -> list[list[Job]]:
    """Jobs in the order of ``order``: one that trains goes alone, those that share features together.

    A worker makes the features of a test set once for its batch; ``width=1`` leaves every job alone.
    """
    found = []
    for _, group in groupby(sorted(jobs, key=lambda j: order(j.run)), key=lambda j: order(j.run)[:3]):
        members = list(group)
        together = width > 1 and fit_of(members[0].run.method).shares_features
        share = min(BATCH, -(-len(members) // width)) if together else 1
        found += [members[i : i + share] for i in range(0, len(members), share)]
    return found


def distinct(items: Sequence, identity) -> dict[str, list]:
    """Items by what identifies their run, in order: those of one key are one run under several names."""
    found: dict[str, list] = defaultdict(list)
    for item in items:
        found[identity(item.run)].append(item)
    return dict(found)
