"""How long a study takes with so many workers, from recorded times, and what the engines themselves cost."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

from klnorm_lib.study import Record, measurements


def makespan(stages: Sequence[Sequence[float]], workers: int) -> float:
    """Seconds from the first run's start to the last one's end, each worker taking the next run as soon as it is free.

    ``stages``: seconds of every run, in order, of each stage; a stage begins when the one before has ended.
    Raises ``ValueError`` without a worker.
    """
    if workers < 1:
        raise ValueError(f"at least one worker is needed, got {workers}")
    now = 0.0
    for times in stages:
        free = [now] * workers
        for seconds in times:
            heapq.heappush(free, heapq.heappop(free) + seconds)
        now = max(free)
    return now


def bounds(stages: Sequence[Sequence[float]], workers: int) -> tuple[float, float]:
    r"""Between which two times the makespan lies, whatever the order of the runs.

    .. math:: \max(W/w, t_{\max}) \le T_w \le W/w + (1 - 1/w)\, t_{\max}

    for a stage with W seconds of work, w workers and a longest run of t_max seconds; stages add up.
    Source: Graham 1969.
    """
    parts = [(sum(times) / workers, max(times)) for times in stages if times]
    return sum(max(part) for part in parts), sum(share + (1 - 1 / workers) * longest for share, longest in parts)


def stages(records: Iterable[Record]) -> list[list[float]]:
    """Seconds of the finished runs of a study's records, tuning runs first, each run once, in the order of the file."""
    found: dict[str, dict[str, float]] = {"tuning": {}, "final": {}}
    for record in records:
        if record.status == "finished" and record.study:
            found[record.study["stage"]].setdefault(record.hash, record.time["total_seconds"])
    final = [seconds for hash, seconds in found["final"].items() if hash not in found["tuning"]]
    return [times for times in (list(found["tuning"].values()), final) if times]


def engine_rows() -> list[dict[str, Any]]:
    """The measured runs of the smoke study on each engine: ``benchmarks/engines.py`` writes them."""
    return measurements.packaged("engines")["rows"]
