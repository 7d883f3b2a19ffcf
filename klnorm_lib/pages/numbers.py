"""Numbers of records for prose and figures, so that no result is ever typed in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from klnorm_lib.study import Record
from klnorm_lib.study.stats import Comparison

FORM = re.compile(
    r"(?P<study>[\w-]+): (?:(?P<runs>runs|failed runs)|(?P<arm>\S+)(?: minus (?P<baseline>\S+))?"
    r"(?: on (?P<task>\S+))?(?: at (?P<size>\d+))?(?: with (?P<encoder>\S+))?(?: tested on (?P<split>\S+))?)"
)
SPELLING = "STUDY: ARM [minus ARM] [on TASK] [at LABELS] [with ENCODER] [tested on SET], or STUDY: [failed] runs"
EVERY = "all"


def number(records: Iterable[Record], path: str, **where: Any) -> float:
    """The value at dotted ``path`` of the one finished record whose run has the fields in ``where``.

    ``number(records, "test.accuracy", task="mrpc", method="klnorm", seed=0)``.
    Raises ``LookupError`` if no record or more than one fits, or if the record has no such number.
    """
    chosen = [r for r in records if r.status == "finished" and all(r.run.get(k) == v for k, v in where.items())]
    conditions = ", ".join(f"{key}={value!r}" for key, value in where.items()) or "no condition"
    if len(chosen) != 1:
        hint = "name more fields of the run" if chosen else "run it first (`klnorm run`), or check the fields"
        raise LookupError(f"{len(chosen)} finished records fit {conditions}; {hint}")
    value: Any = chosen[0].to_dict()
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            there = f"; there it has {', '.join(value)}" if isinstance(value, Mapping) else ""
            raise LookupError(f"the record has nothing at {path!r}{there}")
        value = value[part]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise LookupError(f"{path!r} of the record is not a number but {value!r}")
    return value


def quote(words: str, studies: Mapping[str, list[Record]] | None = None) -> str:
    """A result as words for a sentence, made from the records.

    ``"text: klnorm_b minus plain on trec at 200"`` gives the paired difference with its interval, verdict and number
    of replicates; ``"text: plain on trec at 200"`` the mean score; ``"text: runs"`` and ``"text: failed runs"`` counts,
    with ``all`` for every study. Differences of scores are in percentage points. What may be left out is left out when
    only one outcome fits. ``studies``: name to records; by default those that are packaged.

    A page of the book writes ``{record}`` before the words in backticks, a notebook ``pages.say(pages.quote(...))``.
    Raises ``ValueError`` for words that it cannot read, ``LookupError`` when no outcome or more than one fits.
    """
    found = FORM.fullmatch(" ".join(words.split()))
    if found is None:
        raise ValueError(f"cannot read {words!r}; the form is {SPELLING}")
    studies = _packaged() if studies is None else studies
    if found["study"] not in studies and not (found["runs"] and found["study"] == EVERY):
        raise LookupError(f"no study {found['study']!r} among the records; there are {', '.join(studies)}")
    if found["runs"]:
        return _count(studies, found["study"], failed=found["runs"] != "runs")
    return _result(studies[found["study"]], words, found.groupdict())


@cache
def _packaged() -> dict[str, list[Record]]:
    from klnorm_lib.sweep.membership import by_study

    return by_study()


def _count(studies: Mapping[str, list[Record]], study: str, failed: bool) -> str:
    records = [r for name, of in studies.items() if study in (EVERY, name) for r in of]
    return f"{len({r.hash for r in records if not failed or r.status == 'failed'}):,}"


def _result(records: list[Record], words: str, want: Mapping[str, str | None]) -> str:
    from klnorm_lib.pages.outcomes import TEST, outcomes

    split = TEST if want["split"] in (None, TEST) else f"ood/{want['split']}"
    arms = list(dict.fromkeys(r.study["arm"] for r in records))
    both = [r for r in records if r.study["arm"] in (want["arm"], want["baseline"])]
    fits = [c for c in outcomes(both, want["study"], want["baseline"]) if c.arm == want["arm"] and c.split == split]
    fits = [c for c in fits if _there(c, want)]
    if want["baseline"]:
        fits = [c for c in fits if c.against is not None]
    if len({c.name for c in fits}) != 1:
        settings = "; ".join(f"on {c.task} at {c.size} with {c.encoder}" for c in fits) or "none"
        raise LookupError(f"{words!r} needs one outcome and fits {len(fits)}: {settings}. Arms: {', '.join(arms)}")
    outcome = fits[0]
    if want["baseline"]:
        return difference(outcome.against)
    if outcome.mean is None:
        raise LookupError(f"{words!r}: no replicate has a score")
    return f"{outcome.mean:.3f} ({len(outcome.runs)} replicates)"


def _there(outcome: Any, want: Mapping[str, str | None]) -> bool:
    encoder = outcome.encoder if outcome.against is None else outcome.against.encoder
    setting = {"task": outcome.task, "size": str(outcome.size), "encoder": encoder}
    return all(want[name] in (None, value) for name, value in setting.items())


def difference(c: Comparison) -> str:
    """A comparison as words: mean, interval, verdict, replicates; scores in percentage points, losses as they are."""
    loss = c.metric.split("/")[-1] in ("nll", "mse")
    factor, form, unit = (1, "+.3f", "") if loss else (100, "+.1f", " percentage points")
    mean, low, high = (format(factor * value, form) for value in (c.mean, c.low, c.high))
    return f"{mean}{unit} [{low}, {high}], {c.verdict}, {c.k} replicates"


class Said(str):
    """A text that a notebook shows as Markdown."""

    def _repr_markdown_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


def say(text: str) -> Said:
    """A sentence with computed numbers in it, as the last value of a notebook's cell: shown as prose.

    ``pages.say(f"KL-Norm gains {pages.quote('text: klnorm_b minus plain on trec at 200')}.")``
    """
    return Said(text)
