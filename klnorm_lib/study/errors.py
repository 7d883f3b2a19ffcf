"""Errors of the study layer; each message says what was wrong, where, and what to do."""

from __future__ import annotations

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
