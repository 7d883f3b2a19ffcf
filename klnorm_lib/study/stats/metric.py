"""One number of a record by its name: a score, a loss, a calibration error, a gap, of the test rows or of a shift."""

from __future__ import annotations

from klnorm_lib.study.record import Record

SMALLER_IS_BETTER = ("ece", "nll", "mse", "gap")


def larger_is_better(metric: str) -> bool:
    """Whether more of a metric is better: no for ``ece``, ``nll``, ``mse`` and gaps, yes for every other."""
    parts = metric.split("/")
    return parts[0] != "gap" and parts[-1] not in SMALLER_IS_BETTER


def value(record: Record, metric: str | None = None) -> float | None:
    """The number that ``metric`` names, or ``None`` where the record has none.

    ``None``: the task's primary metric on the test rows; ``accuracy`` and the like: another one; ``ece`` and ``nll``:
    calibration; ``gap``, ``gap/NAME``: train minus test of the primary metric, or of another; ``ood/SET``,
    ``ood/SET/NAME``: the same on an out-of-domain set.
    """
    name, where = _parts(record, metric)
    if where == "gap":
        return record.gap.get(name)
    if where == "test":
        found = record.test.get(name)
        return record.calibration["test"].get(name) if found is None else found
    ood = where.removeprefix("ood/")
    found = record.ood.get(ood, {}).get(name)
    return record.calibration["ood"].get(ood, {}).get(name) if found is None else found


def rows(record: Record, metric: str | None = None) -> dict | None:
    """The entry of row scores that belongs to ``metric``, or ``None`` where the record has none of that metric."""
    name, where = _parts(record, metric)
    entry = (getattr(record, "row_scores", None) or {}).get(where)
    return entry if entry is not None and entry["metric"] == name else None


def full_name(record: Record, metric: str | None) -> str:
    """The metric with everything said that may be left out: ``None`` is ``accuracy``, ``gap`` is ``gap/accuracy``."""
    name, where = _parts(record, metric)
    return name if where == "test" else f"{where}/{name}"


def _parts(record: Record, metric: str | None) -> tuple[str, str]:
    """Name of the number, and where it is stored: ``test``, ``gap`` or ``ood/SET``."""
    primary = record.task["primary_metric"]
    parts = (metric or primary).split("/")
    if parts[0] == "gap" and len(parts) < 3:
        return (parts[1] if len(parts) == 2 else primary), "gap"
    if parts[0] == "ood" and len(parts) > 1:
        if "/".join(parts[1:]) in record.ood or len(parts) == 2:  # names of sets may have a slash
            return primary, "/".join(parts)
        return parts[-1], "/".join(parts[:-1])
    if len(parts) > 1 or parts[0] == "ood":
        raise ValueError(f"unknown metric {metric!r}; say a name, 'gap', 'gap/NAME', 'ood/SET' or 'ood/SET/NAME'")
    return parts[0], "test"
