"""The evidence of a method's card: paired differences from the packaged records, never typed.

A card holds ``<!-- evidence -->`` ... ``<!-- /evidence -->``; ``python -m klnorm_lib.report.evidence FOLDER`` fills
them.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

from klnorm_lib.report.tables import method_label, packaged
from klnorm_lib.study import Record, read_records
from klnorm_lib.study.stats import best_rate, differences, shared_rates, t_interval, verdict

BASELINES = ("plain", "norm_head(kind=layer)")
NONE = (
    "No comparison has been recorded yet, so this card claims nothing about accuracy. When a study with this method "
    "is in the\nrecords, its paired intervals will be drawn here."
)
READ = """\
Test score, method minus baseline, paired by seed: mean and 95 % interval (Student's t). Each arm is at the learning
rate with the best mean validation score, out of the same {rates} rates; other hyperparameters are at the values shown,
or at their defaults. Data split and model seed change together. The intervals are not corrected for the number of
rows. One small encoder, few seeds and few tasks: a first look, not a verdict on the method."""


def evidence(name: str) -> str:
    """Paired differences of every recorded variant of a method from its baselines, as markdown."""
    cells: dict[tuple, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for path in packaged():
        for record in read_records(path):
            if record.status == "finished":
                place = (record.task["name"], record.run["size"], record.encoder["name"], record.run["steps"])
                cells[place][method_label(record)].append(record)
    rows, rates = [], set()
    for (task, size, encoder, _), arms in sorted(cells.items()):
        for label in sorted(arms):
            if arms[label][0].method["name"] != name:
                continue
            against = [b for b in BASELINES if b in arms and b != label]
            rates |= {r.run["learning_rate"] for r in arms[label]}
            shown = [_compare(arms[label], arms[b]) if b in against else "–" for b in BASELINES]
            rows.append(f"| {task} | {size} | {encoder} | `{label}` | {' | '.join(shown)} |")
    if not rows:
        return NONE
    head = "| task | labels | encoder | method | minus plain | minus LayerNorm |\n|:--|--:|:--|:--|:--|:--|"
    return "\n".join([READ.format(rates=len(rates)), "", head, *rows])


def _compare(arm: list[Record], baseline: list[Record]) -> str:
    change = differences(*(best_rate(records)[0] for records in shared_rates(arm, baseline)))
    low, high = t_interval(change)
    return f"{change.mean():+.3f} [{low:+.3f}, {high:+.3f}], {len(change)} seeds: {verdict(low, high)}"


def refresh(card: str, name: str) -> str:
    """The text of a card with its evidence made anew."""
    body = evidence(name)
    return re.sub(
        r"(<!-- evidence -->\n).*?(<!-- /evidence -->)", lambda m: f"{m[1]}\n{body}\n\n{m[2]}", card, flags=re.S
    )


if __name__ == "__main__":
    for file in Path(sys.argv[1]).glob("*.md"):
        file.write_text(refresh(file.read_text(), file.stem))
