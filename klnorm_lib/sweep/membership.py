"""Which study a record belongs to; records made before their study had a YAML file are found in it by their runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from klnorm_lib import studies
from klnorm_lib.study import store
from klnorm_lib.study.errors import StudyError
from klnorm_lib.study.record import Record
from klnorm_lib.sweep.design import run_key
from klnorm_lib.sweep.grid import load


def by_study(paths: Iterable[str | Path] | None = None) -> dict[str, list[Record]]:
    """The records of files by study, in order of appearance; by default those of all packaged files.

    Records without a ``study`` belong to the packaged study of their file's name; see :func:`members`. Raises
    ``RecordError`` for a broken file, ``StudyError`` where there is no study of that name.
    """
    found: dict[str, list[Record]] = defaultdict(list)
    early: dict[str, list[Record]] = defaultdict(list)
    for path in map(Path, studies.record_files() if paths is None else paths):
        for record in store.read_records(path):
            if record.study is None:
                early[path.stem].append(record)
            else:
                found[record.study["name"]].append(record)
    pool = [record for records in early.values() for record in records]
    for name, records in early.items():
        if name not in studies.names():
            raise StudyError(f"the records of {name}.jsonl name no study, and no packaged study is called {name!r}")
        found[name] += members(name, records, pool)
    return dict(found)


def members(name: str, records: Iterable[Record], pool: Iterable[Record]) -> list[Record]:
    """Records without a ``study`` as those of the packaged study ``name``: copies that say so.

    ``pool``: where runs that its own file lacks are looked for, by everything that tells one run from another; a study
    may share runs with another one. A record of its own file, out of ``records``, whose run the study does not name was
    tried beside it: it counts as a tuning run, and so is no result.
    """
    grid, records, pool = load(name), list(records), list(pool)
    by_run = {run_key(record.run): record for record in (*pool, *records)}  # those of its own file come first
    items = [*grid.tuning(grid.parts), *grid.final(pool, grid.parts, untuned=[])]
    planned = [(by_run.get(run_key(item.run.to_dict())), item.study) for item in items]
    found = [replace(record, study=dict(study)) for record, study in planned if record is not None]
    hashes = {record.hash for record in found}
    return found + [replace(r, study=_beside(name, r)) for r in records if r.hash not in hashes]


def _beside(name: str, record: Record) -> dict:
    arm = record.method["name"]
    trial = {"learning_rate": record.run["learning_rate"]}
    return {"name": name, "part": "beside", "arm": arm, "label": arm, "stage": "tuning", "trial": trial, "trials": 1}
