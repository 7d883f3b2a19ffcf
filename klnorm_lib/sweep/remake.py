r"""Make a committed result again, and say whether the numbers hold.

On the same hardware, with the same threads and versions, a run gives the same bits, so the tolerance is zero.
Elsewhere rounding differs, small differences grow over the steps of training, and a run is at worst as far from the
committed one as a run of another seed is. With k replicates remade, s the standard deviation of the committed scores
over their replicates and r the error that the sample of test rows leaves in one score, the tolerance of the mean is

.. math:: t_{0.995,\,K-1}\, \max(s, r) \sqrt{2 / k}

where K is the number of committed replicates. It follows from the committed records alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scipy import stats

from klnorm_lib import studies
from klnorm_lib.study import store
from klnorm_lib.study.errors import StudyError
from klnorm_lib.study.record import Record
from klnorm_lib.study.rows import decode
from klnorm_lib.study.stats.paired import Replicate
from klnorm_lib.sweep.execution import Item, Options, Summary, execute
from klnorm_lib.sweep.index import RecordIndex, run_of
from klnorm_lib.sweep.membership import by_study

LEVEL = 0.99
SAME = ("cpu", "system", "threads", "device", "gpu")


@dataclass(frozen=True)
class ResultName:
    """Which result of a study, a setting with an arm: ``trec/200/klnorm-tiny/klnorm_b``."""

    task: str
    size: int | None
    encoder: str
    arm: str

    @classmethod
    def parse(cls, text: str) -> ResultName:
        """The result that TASK/SIZE/ENCODER/ARM names; an encoder may have a slash. Raises ``StudyError``."""
        task, *rest = text.split("/")
        if len(rest) < 3 or not (rest[0].isdigit() or rest[0] == "None"):
            raise StudyError(f"a result is named TASK/SIZE/ENCODER/ARM, as trec/200/klnorm-tiny/klnorm_b; got {text!r}")
        size, *encoder, arm = rest
        return cls(task, int(size) if size.isdigit() else None, "/".join(encoder), arm)

    def __str__(self) -> str:
        return f"{self.task}/{self.size}/{self.encoder}/{self.arm}"


@dataclass(frozen=True)
class Remade:
    """Committed and remade scores of a result, by replicate; ``same`` if the machine and the versions are the same.

    ``other`` names what is not as it was: another hash means other data, weights, threads or device.
    """

    result: ResultName
    metric: str
    replicates: tuple[Replicate, ...]
    committed: tuple[float | None, ...]
    remade: tuple[float | None, ...]
    tolerance: float
    same: bool
    other: tuple[str, ...]

    @property
    def difference(self) -> float:
        """Largest difference of a score (same machine), or that of the means (another machine)."""
        pairs = zip(self.committed, self.remade, strict=True)
        apart = [math.inf if (a is None) != (b is None) else (b or 0.0) - (a or 0.0) for a, b in pairs]
        return max(map(abs, apart)) if self.same else abs(sum(apart)) / len(apart)

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.difference <= self.tolerance


def committed(name: str, result: ResultName, part: str | None = None) -> list[Record]:
    """The finished final runs of a result among a packaged study's records, in the order of the replicates.

    ``part`` tells results of one name apart, where two parts of the study have them. Raises ``StudyError`` for a study
    without records, a result that they do not have, naming those that they do, and one that is in several parts.
    """
    file = studies.path(f"{name}.jsonl")
    if not file.is_file():
        raise StudyError(f"study {name!r} has no committed records")
    records = store.read_records(file)
    if not all(r.study for r in records):  # made before the study had a file
        records = by_study()[name]
    finals = [r for r in records if r.status == "finished" and r.study and r.study["stage"] == "final"]
    here = [r for r in finals if name_of(r) == result and part in (None, r.study["part"])]
    found = {(r.run["split_seed"], r.run["seed"]): r for r in here}
    if len(found) < len({r.hash for r in here}):
        parts = ", ".join(dict.fromkeys(r.study["part"] for r in here))
        raise StudyError(f"{result} is in several parts of study {name!r}; say which with --part: {parts}")
    if not found:
        near = sorted({str(name_of(r)) for r in finals})
        some = [other for other in near if other.startswith(f"{result.task}/")] or near
        raise StudyError(f"no committed record of {result} in study {name!r}; there are {', '.join(some[:20])}")
    return [found[replicate] for replicate in sorted(found)]


def name_of(record: Record) -> ResultName:
    """The result of a study that a record belongs to."""
    run = record.run
    return ResultName(run["task"], run["size"], run["encoder"], record.study["arm"])


def remake(
    name: str,
    result: ResultName,
    replicates: int | None = None,
    options: Options | None = None,
    part: str | None = None,
) -> tuple[Remade, Summary]:
    """Carry out the runs of a committed result again, the first ``replicates`` of them, and compare.

    No run is looked up; the threads are those of the records. Raises ``StudyError`` if one of the runs fails.
    """
    old = committed(name, result, part)
    again = old[:replicates]
    threads = {r.hardware["threads"] for r in again}
    options = replace(options or Options(), threads=min(threads))
    index = RecordIndex(None)
    items = [Item(replace(run_of(r), device=r.hardware["device"]), {**r.study}) for r in again]
    summary = execute(items, index, options)
    if summary.failures:
        raise StudyError(f"{result} could not be remade: {summary.failures[0]}")
    new = {(r.run["split_seed"], r.run["seed"]): r for r in index.records}
    return compare(result, old, [new[r.run["split_seed"], r.run["seed"]] for r in again]), summary


def compare(result: ResultName, old: Sequence[Record], new: Sequence[Record]) -> Remade:
    """Committed records of a result (all replicates) beside remade ones (the first of them)."""
    again = old[: len(new)]
    metric = again[0].task["primary_metric"]
    other = sorted({what for a, b in zip(again, new, strict=True) for what in differing(a, b)})
    same = not other
    return Remade(
        result,
        metric,
        tuple((r.run["split_seed"], r.run["seed"]) for r in again),
        tuple(r.test[metric] for r in again),
        tuple(r.test[metric] for r in new),
        0.0 if same else tolerance(old, len(again)),
        same,
        tuple(other),
    )


def differing(old: Record, new: Record) -> list[str]:
    """What may move the numbers of a run: packages, hardware, and what its hash is made of."""
    found = [name for name in old.versions if name != "klnorm_lib" and old.versions[name] != new.versions.get(name)]
    found += [name for name in SAME if old.hardware.get(name) != new.hardware.get(name)]
    return found + (["data, weights or method"] if old.hash != new.hash and not found else [])


def tolerance(old: Iterable[Record], k: int) -> float:
    """How far the mean of ``k`` remade replicates may be from that of the same committed ones, on another machine."""
    scores = [(r, r.test[r.task["primary_metric"]]) for r in old]
    values = [value for _, value in scores if value is not None]
    if not values:
        return 0.0
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0
    rows = max(row_error(record) for record, _ in scores)
    t = stats.t.ppf((1 + LEVEL) / 2, max(1, len(values) - 1)) if len(values) > 1 else stats.norm.ppf((1 + LEVEL) / 2)
    return float(t) * max(spread, rows) * math.sqrt(2 / k)


def row_error(record: Record) -> float:
    """Standard error that the sample of test rows leaves in the primary score of one run."""
    entry = record.row_scores.get("test")
    if entry is not None:
        values = decode(entry)
        return float(values.std(ddof=1) / math.sqrt(len(values)))
    score, count = record.test[record.task["primary_metric"]], record.rows["test"]
    share = 0.5 if score is None or not 0 <= score <= 1 else score
    return math.sqrt(share * (1 - share) / count)
