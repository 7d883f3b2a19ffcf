"""Errors of the study layer; each message says what was wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ADVICE = (
    "The run was stopped and its failure is kept in the records. Lower learning_rate (or beta, if the method has one), "
    "raise warmup_ratio, or use precision='fp32'; then run again"
)


class StudyError(RuntimeError):
    """A run could not be carried out."""


class NotFiniteError(StudyError):
    """The loss or a prediction became NaN or infinite.

    ``step`` is the optimiser step at which it happened, counted from 1.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class RecordError(ValueError):
    """A record, or a line of a record file, is not what the schema asks for."""


class NotWrittenError(OSError):
    """The record of a finished run did not go into its file; nothing of it is lost.

    ``record`` is the record, ``kept`` the file that holds it instead, ``None`` where no folder took it: then
    the message has the whole line.
    """

    def __init__(self, path: Path, reason: OSError, record: Any, kept: Path | None):
        again = "" if kept is None else f": when {path} can be written again, `cat {kept} >> {path}` adds it"
        where = f"nowhere else; keep this line: {record.to_line()}" if kept is None else f"in {kept}{again}"
        super().__init__(f"{path} did not take the record of this run ({reason}). The record is {where}")
        self.record, self.kept = record, kept
