"""One number of one record, for prose and figures, so that no result is ever typed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from klnorm_lib.study import Record


def number(records: Iterable[Record], path: str, **where: Any) -> float:
    """The value at dotted ``path`` of the one finished record whose run has the fields in ``where``.

    ``number(records, "test.accuracy", task="mrpc", method="klnorm", seed=0)``.
    Raises ``LookupError`` if no record or more than one fits, or if the record has no such number.
    """
    chosen = [r for r in records if r.status == "finished" and all(r.run.get(k) == v for k, v in where.items())]
    told = ", ".join(f"{key}={value!r}" for key, value in where.items()) or "no condition"
    if len(chosen) != 1:
        hint = "name more fields of the run" if chosen else "run it first (`klnorm run`), or check the fields"
        raise LookupError(f"{len(chosen)} finished records fit {told}; {hint}")
    value: Any = chosen[0].to_dict()
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            there = f"; at that place it has {', '.join(value)}" if isinstance(value, Mapping) else ""
            raise LookupError(f"the record has nothing at {path!r}{there}")
        value = value[part]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise LookupError(f"{path!r} of the record is not a number but {value!r}")
    return value
