"""What can go wrong with data; every class is a ``ValueError``, so one except clause catches all."""

from __future__ import annotations


class TaskError(ValueError):
    """A request that cannot be served: a bad size, seed, source or column."""


class UnknownTaskError(TaskError):
    """No task of that name."""


class SourceUnavailableError(TaskError):
    """None of the sources that were tried has the data."""


class CorruptDataError(TaskError):
    """A file is there but is not what it says it is."""


class LayoutError(TaskError):
    """A data set is there but lacks the columns, splits or labels that the registry expects."""
