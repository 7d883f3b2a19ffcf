"""The measured parts of an encoder's card: regenerated from its records, never typed.

A card holds ``<!-- NAME -->`` ... ``<!-- /NAME -->`` marks; ``refresh`` fills what lies between them.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from klnorm_lib.encoders.sources import HERE, RANDOM, names
from klnorm_lib.report.paired import Scores, best_rate, differences, shared_rates, t_interval
from klnorm_lib.report.tables import packaged
from klnorm_lib.study import Record, read_records


def refresh(name: str) -> str:
    """The card of a built-in encoder with its measured parts made anew from pretraining.json and the records.

    Raises ``LookupError`` when no packaged record compares the encoder with its random twin.
    """
    folder = HERE / name
    parts = {"recipe": recipe(folder), "twins": twins(name)}
    text = (folder / "README.md").read_text()
    for mark, body in parts.items():
        text = re.sub(
            rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", lambda m, b=body: f"{m[1]}\n{b}\n{m[2]}", text, flags=re.S
        )
    return text


def recipe(folder: Path) -> str:
    """How it was pretrained and how well it predicts held-out tokens, as a markdown table."""
    told = json.loads((folder / "pretraining.json").read_text())
    config = told["config"]
    rows = {
        "layers x width, heads": f"{config['layers']} x {config['hidden_size']}, {config['heads']}",
        "vocabulary": f"{config['vocab_size']:,} word pieces, lower case",
        "corpora": ", ".join(config["corpora"]),
        "tokens in the corpora": f"{told['train_tokens']:,}",
        "tokens seen": f"{told['tokens_seen']:,}",
        "steps x sequences x tokens": f"{told['step']:,} x {config['batch_size']} x {config['length']}",
        "peak learning rate": f"{config['learning_rate']:g}",
        "masked tokens": f"{config['mask_probability']:.0%}",
        "time": f"{told['seconds'] / 60:.0f} minutes on a shared {told['device']}, threads used: {told['threads']}",
        "held-out masked-token loss": f"{told['heldout_loss']:.3f} nats",
        "held-out masked-token perplexity": f"{math.exp(told['heldout_loss']):.1f}",
    }
    return "\n".join(["| | |", "|:--|:--|", *(f"| {k} | {v} |" for k, v in rows.items())]) + "\n"


def twins(name: str) -> str:
    """The encoder against the same architecture with random weights, seed by seed, as a markdown table.

    Each arm's learning rate is the one with the best mean validation score over the seeds; the test scores at that
    rate are paired by seed, and the 95 % interval of the mean difference is Student's t.
    """
    records = [
        r
        for path in packaged()
        for r in read_records(path)
        if r.status == "finished" and r.method["name"] == "plain" and r.encoder["name"] in (name, name + RANDOM)
    ]
    cells: dict[tuple, list[Record]] = defaultdict(list)
    for record in records:
        cells[record.task["name"], record.run["size"]].append(record)
    if not cells:
        raise LookupError(f"no packaged record compares {name} with {name}{RANDOM}; run the comparison first")
    lines = [
        "| task | labels | seeds | pretrained, mean | random, mean | difference, 95 % interval |",
        "|:--|--:|--:|--:|--:|:--|",
    ]
    for (task, size), members in sorted(cells.items()):
        arms = shared_rates(*([r for r in members if r.encoder["name"] == e] for e in (name, name + RANDOM)))
        best = [best_rate(arm) for arm in arms]
        change = differences(best[0][0], best[1][0])
        low, high = t_interval(change)
        lines.append(
            f"| {task} | {size} | {len(change)} | {' | '.join(_arm(*b) for b in best)} "
            f"| {change.mean():+.3f} [{low:+.3f}, {high:+.3f}] |"
        )
    return "\n".join(lines) + "\n"


def _arm(scores: Scores, rate: float, largest: bool) -> str:
    return f"{np.mean(list(scores.values())):.3f} at {rate:g}{' (largest tried)' if largest else ''}"


if __name__ == "__main__":
    for built_in in names():
        (HERE / built_in / "README.md").write_text(refresh(built_in))
