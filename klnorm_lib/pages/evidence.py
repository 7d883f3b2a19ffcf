"""The evidence of a method's card: paired differences from the packaged records, never typed.

A card has ``<!-- evidence -->`` ... ``<!-- /evidence -->``, and the same for ``arguments``;
``python -m klnorm_lib.pages.evidence FOLDER`` fills them.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from klnorm_lib.figures.forest import span
from klnorm_lib.methods import REGISTRY
from klnorm_lib.pages import arguments
from klnorm_lib.pages.outcomes import HALVED, MACHINERY, SECOND, TEST, Outcome, outcomes, over_settings
from klnorm_lib.study import Record
from klnorm_lib.sweep.membership import by_study

BASELINES = {  # "plain" of the studies of dropout is called by its rate
    "plain": ("plain", "uniform_10"),
    "plain at the common rate": (SECOND,),
    "LayerNorm": ("layernorm", "norm_head(kind=layer)"),
    "plain with half the dropout": (HALVED,),
}
NONE = (
    "No comparison has been recorded yet, so this card claims nothing about accuracy. When a study with this method "
    "is in the\nrecords, its paired intervals will be drawn here."
)
READ = """\
Test score, method minus baseline, in percentage points: the mean over the settings of a study (task and number of
labels), with its 95 % interval, and the verdicts of the single settings. Arms are paired within replicates. *Trials*:
how many candidates an arm could choose from, on validation rows; with one trial nothing was chosen. Studies that tuned
nothing, and every single setting, are on the {doc}`../results` page."""
NOTES = {
    "plain at the common rate": "Where tuning gave plain another learning rate than most arms, the difference to plain "
    "at their rate stands beside; that arm was added once this was seen.",
    "plain with half the dropout": "In study guided all arms share one learning rate. Plain has a dropout of 0.1 "
    "there, as the encoders come; a method that lowers the rates has to be better than plain with a dropout of 0.05, "
    "too.",
}


def evidence(name: str) -> str:
    """Paired differences of every tuned arm of a method from its baselines, as markdown."""
    rows = []
    for study, records in _studies().items():
        final = [r for r in records if r.study["stage"] == "final"]
        if any(r.study["trials"] > 1 for r in final):
            rows += _rows(study, final, name)
    if not rows:
        return NONE
    shown = [b for b in BASELINES if any(b in against for _, against in rows)]
    read = "\n".join([READ, *(textwrap.fill(NOTES[b], 120, break_on_hyphens=False) for b in shown if b in NOTES)])
    head = f"| study | encoder | arm | trials | settings, replicates | {' | '.join(f'minus {b}' for b in shown)} |"
    lines = [f"| {start} | {' | '.join(against.get(b, '–') for b in shown)} |" for start, against in rows]
    return "\n".join([read, "", head, f"|:--|:--|:--|--:|:--|{':--|' * len(shown)}", *lines])


@cache
def _studies() -> dict[str, list[Record]]:
    return {name: records for name, records in by_study().items() if name not in MACHINERY}


def _rows(study: str, records: Sequence[Record], name: str) -> list[tuple[str, dict[str, str]]]:
    """One row for each arm of the method and encoder: how it starts, and what stands under each baseline."""
    arms = {r.study["arm"]: r.study["label"] for r in records if name in r.method["name"].split("+")}
    trials = {r.study["arm"]: r.study["trials"] for r in records}
    baselines = {shown: next((b for b in names if _has(records, b)), None) for shown, names in BASELINES.items()}
    against: dict[str, dict[tuple[str, str], list[Outcome]]] = {shown: {} for shown in BASELINES}
    for shown, baseline in baselines.items():
        both = [r for r in records if r.study["arm"] in (*arms, baseline)]
        for c in outcomes(both, study, baseline) if baseline else ():
            if c.arm in arms and c.split == TEST and c.against is not None:
                against[shown].setdefault((c.against.encoder, c.arm), []).append(c)
    rows = list(dict.fromkeys(row for of in against.values() for row in of))
    return [
        _row(study, encoder, arms[arm], trials[arm], {b: of.get((encoder, arm), []) for b, of in against.items()})
        for encoder, arm in rows
    ]


def _has(records: Sequence[Record], arm: str) -> bool:
    return any(r.study["arm"] == arm for r in records)


def _row(
    study: str, encoder: str, label: str, trials: int, against: Mapping[str, Sequence[Outcome]]
) -> tuple[str, dict[str, str]]:
    found = max(against.values(), key=len)
    size = f"{len(found)}, {span(c.against.k for c in found)}"
    start = " | ".join([study, encoder.split("/")[-1], label, str(trials), size])
    return start, {b: _text(of) for b, of in against.items() if of}


def _text(found: Sequence[Outcome]) -> str:
    mean, low, high = (100 * value for value in over_settings(found))
    counted = Counter(c.against.verdict for c in found)
    verdicts = ", ".join(f"{counted[v]} {v}" if len(found) > 1 else v for v in VERDICTS if counted[v])
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]: {verdicts}"


VERDICTS = ("better", "worse", "equivalent", "cannot tell")


def refresh(card: str, name: str) -> str:
    """The text of a card with its arguments and its evidence made anew."""
    made = {"evidence": evidence(name)}
    if name in REGISTRY:  # a baseline has no class whose fields are described
        made["arguments"] = arguments.table(name)
    for mark, body in made.items():
        card = re.sub(
            rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", lambda m, b=body: f"{m[1]}\n{b}\n\n{m[2]}", card, flags=re.S
        )
    return card


if __name__ == "__main__":
    for file in Path(sys.argv[1]).glob("*.md"):
        file.write_text(refresh(file.read_text(), file.stem))
