"""Numbers of records for prose and figures, so that no result is ever typed in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from klnorm_lib.study import Record
from klnorm_lib.study.stats import Comparison

ASKED = re.compile(
    r"(?P<study>[\w-]+): (?:(?P<runs>runs|failed runs)|(?P<arm>\S+)(?: minus (?P<baseline>\S+))?"
    r"(?: on (?P<task>\S+))?(?: at (?P<size>\d+))?(?: with (?P<encoder>\S+))?(?: tested on (?P<split>\S+))?)"
)
FORM = "STUDY: ARM [minus ARM] [on TASK] [at LABELS] [with ENCODER] [tested on SET], or STUDY: [failed] runs"
EVERY = "all"


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


def quote(asked: str, studies: Mapping[str, list[Record]] | None = None) -> str:
    """A result as words for a sentence, made from the records.

    ``"text: klnorm_b minus plain on trec at 200"`` gives the paired difference with its interval, verdict and number
    of draws; ``"text: plain on trec at 200"`` the mean score; ``"text: runs"`` and ``"text: failed runs"`` counts, with
    ``all`` for every study. Differences of scores are in points, hundredths. What may be left out is left out when only
    one cell fits. ``studies``: name to records; by default those that are packaged.

    A page of the book writes ``{record}`` before the words in backticks, a notebook ``report.say(report.quote(...))``.
    Raises ``ValueError`` for words that it cannot read, ``LookupError`` when no cell or more than one fits.
    """
    found = ASKED.fullmatch(" ".join(asked.split()))
    if found is None:
        raise ValueError(f"cannot read {asked!r}; the form is {FORM}")
    held = _packaged() if studies is None else studies
    if found["study"] not in held and not (found["runs"] and found["study"] == EVERY):
        raise LookupError(f"no study {found['study']!r} among the records; there are {', '.join(held)}")
    if found["runs"]:
        return _count(held, found["study"], failed=found["runs"] != "runs")
    return _result(held[found["study"]], asked, found.groupdict())


@cache
def _packaged() -> dict[str, list[Record]]:
    from klnorm_lib.sweep.membership import by_study

    return by_study()


def _count(held: Mapping[str, list[Record]], study: str, failed: bool) -> str:
    records = [r for name, of in held.items() if study in (EVERY, name) for r in of]
    return f"{len({r.hash for r in records if not failed or r.status == 'failed'}):,}"


def _result(records: list[Record], asked: str, want: Mapping[str, str | None]) -> str:
    from klnorm_lib.pages.cells import TEST, cells

    split = TEST if want["split"] in (None, TEST) else f"ood/{want['split']}"
    known = list(dict.fromkeys(r.study["arm"] for r in records))
    held = [r for r in records if r.study["arm"] in (want["arm"], want["baseline"])]
    fits = [c for c in cells(held, want["study"], want["baseline"]) if c.arm == want["arm"] and c.split == split]
    fits = [c for c in fits if _there(c, want)]
    if want["baseline"]:
        fits = [c for c in fits if c.against is not None]
    if len({c.name for c in fits}) != 1:
        places = "; ".join(f"on {c.task} at {c.size} with {c.encoder}" for c in fits) or "none"
        raise LookupError(f"{asked!r} needs one cell and fits {len(fits)}: {places}. Arms: {', '.join(known)}")
    cell = fits[0]
    if want["baseline"]:
        return difference(cell.against)
    if cell.mean is None:
        raise LookupError(f"{asked!r}: no draw has a score")
    return f"{cell.mean:.3f} ({len(cell.runs)} draws)"


def _there(cell: Any, want: Mapping[str, str | None]) -> bool:
    encoder = cell.encoder if cell.against is None else cell.against.encoder
    held = {"task": cell.task, "size": str(cell.size), "encoder": encoder}
    return all(want[name] in (None, value) for name, value in held.items())


def difference(c: Comparison) -> str:
    """A comparison as words: mean, interval, verdict, number of draws; scores in points, losses as they are."""
    loss = c.metric.split("/")[-1] in ("nll", "mse")
    factor, form, unit = (1, "+.3f", "") if loss else (100, "+.1f", " points")
    mean, low, high = (format(factor * value, form) for value in (c.mean, c.low, c.high))
    return f"{mean}{unit} [{low}, {high}], {c.verdict}, {c.k} draws"


class Said(str):
    """A text that a notebook shows as Markdown."""

    def _repr_markdown_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


def say(text: str) -> Said:
    """A sentence with computed numbers in it, as the last value of a notebook's cell: shown as prose.

    ``report.say(f"KL-Norm gains {report.quote('text: klnorm_b minus plain on trec at 200')}.")``
    """
    return Said(text)
