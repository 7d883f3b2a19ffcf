"""Which runs a records file has already, looked up by run without loading any data."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from klnorm_lib.study import store
from klnorm_lib.study.errors import StudyError
from klnorm_lib.study.hashing import OUTSIDE
from klnorm_lib.study.inputs import hyperparameters
from klnorm_lib.study.plain import to_plain
from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import LATER, Run
from klnorm_lib.study.store import label

OF_THE_MOMENT = ("created", "time", "memory")  # fields of a record that differ from one try to the next


def identity(run: Run) -> str:
    """What tells one run from another before its data and weights are looked at; a default written out is the same."""
    try:
        values = hyperparameters(run)
    except (ValueError, StudyError):  # its worker will say what is wrong
        values = to_plain(run.method_args)
    return _identity(run.to_dict(), values)


def _identity(run: Mapping[str, Any], method: Mapping[str, Any]) -> str:
    fields = {name: value for name, value in run.items() if name not in OUTSIDE}
    return json.dumps([fields, method], sort_keys=True, default=str)


class RecordIndex:
    """The records of a file, read once, and those appended since; ``path`` need not exist yet."""

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self.records: list[Record] = []
        self._by_identity: dict[str, dict[str, str]] = defaultdict(dict)
        self._by_hash: dict[str, Record] = {}
        self._labels: dict[str, set[tuple | None]] = defaultdict(set)
        self._seconds: dict[tuple, list[float]] = defaultdict(list)
        if self.path is not None and self.path.is_file():
            for record in store.read_records(self.path):
                self._note(record)

    def append(self, record: Record) -> None:
        """Write a record to the file at once, and remember it."""
        if self.path is not None:
            store.append(self.path, record)
        self._note(record)

    def lookup(self, run: Run) -> dict[str, str]:
        """Hash and status of the records that may be of this run: all but data, weights and threads agree."""
        return dict(self._by_identity.get(identity(run), {}))

    def adopt(self, hash: str, study: Mapping[str, Any] | None) -> bool:
        """Give a finished run a record under this study's name as well, if it has none; true if one was written."""
        record = self._by_hash[hash]
        if study is None or record.status != "finished" or label(study) in self._labels[hash]:
            return False
        self.append(replace(record, study=dict(study)))
        return True

    def failure(self, hash: str) -> str:
        """What a recorded failure says, and how to try again."""
        error = self._by_hash[hash].error
        return f"{error['type']}: {error['message']} (recorded before; --retry tries again)"

    def seconds(self, run: Run) -> float | None:
        """Typical time of such a run, from those recorded: same task, size, encoder and method, or near it."""
        for key in _similar(run.to_dict()):
            if self._seconds.get(key):
                return median(self._seconds[key])
        return None

    def _note(self, record: Record) -> None:
        self.records.append(record)
        statuses = self._by_identity[_identity(record.run, record.method["fields"])]
        if statuses.get(record.hash) != "finished":
            statuses[record.hash] = record.status
            self._by_hash[record.hash] = record
        if record.status == "finished":
            self._labels[record.hash].add(label(record.study))
            for key in _similar(record.run):
                self._seconds[key].append(record.time["total_seconds"])


def _similar(run: Mapping[str, Any]) -> list[tuple]:
    """Keys of similar runs, the closest first, for guessing the time of one."""
    task, size, encoder, method = (run.get(name) for name in ("task", "size", "encoder", "method"))
    return [(task, size, encoder, method), (task, encoder, method), (encoder, method), (encoder,), ()]


def run_of(record: Record) -> Run:
    """The run that a record is of, to be carried out again."""
    values = dict(record.run)
    for name in LATER:
        values.setdefault(name, getattr(Run, name))
    return Run(**values)


def lasting(record: Record) -> dict[str, Any]:
    """What of a record the same run on the same machine gives again: all but when, how long and how much memory."""
    return {name: value for name, value in record.to_dict().items() if name not in OF_THE_MOMENT}


def digest(records: Iterable[Record]) -> str:
    """A checksum of what lasts of some records, whatever their order: two engines that agree have the same."""
    lines = sorted(json.dumps(lasting(record), sort_keys=True) for record in records)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
