"""A run in a notebook: carried out by papermill in a kernel of its own, the executed notebook kept as evidence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from klnorm_lib import studies
from klnorm_lib.study import store
from klnorm_lib.study.errors import StudyError
from klnorm_lib.study.plain import to_plain
from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import Run

NOTEBOOK = "run.ipynb"


def parameters(run: Run) -> dict[str, Any]:
    """Every field of a run as plain values, folders by their paths: ``Run(**parameters(run)) == run``."""
    return {f.name: to_plain(getattr(run, f.name)) for f in fields(run)}


def in_notebook(run: Run, study: Mapping[str, Any] | None, threads: int, folder: str, hash: str) -> Record:
    """Carry out a run of a study in the packaged notebook; ``folder`` receives it executed, and its record beside it.

    The record of a failed run is returned as well. Raises ``StudyError`` if papermill is missing or the notebook ends
    without a record.
    """
    try:
        import papermill
    except ImportError:
        raise StudyError("--notebook needs papermill: pip install papermill ipykernel") from None
    Path(folder).mkdir(parents=True, exist_ok=True)
    out = Path(folder) / f"{name(run, study, hash)}.ipynb"
    record = out.with_suffix(".jsonl")
    record.unlink(missing_ok=True)
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this environment
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    given = {"fields": parameters(run), "study": study and dict(study), "threads": threads}
    given |= {"record_file": str(record)}
    try:
        papermill.execute_notebook(studies.path(NOTEBOOK), out, given, progress_bar=False, log_output=False)
    except papermill.PapermillExecutionError as error:
        if not record.is_file():
            raise StudyError(f"the notebook {out} ended without a record: {error.ename}: {error.evalue}") from None
    return store.read_records(record)[-1]


def name(run: Run, study: Mapping[str, Any] | None, hash: str) -> str:
    """A file name that identifies the run: arm, task, size, replicate, and the beginning of its hash."""
    arm = run.method if study is None else f"{study['stage']}-{study['arm']}"
    task = run.task or Path(run.data).stem
    return f"{task}-{run.size or 'all'}-{arm}-{run.split_seed}-{run.seed}-{hash[:12]}"
