"""The measured parts of an encoder's card: regenerated from its records, never typed.

A card holds ``<!-- NAME -->`` ... ``<!-- /NAME -->`` marks; ``refresh`` fills what lies between them.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import numpy as np

from klnorm_lib.encoders.sources import HERE, RANDOM, names
from klnorm_lib.pages import card_claims, card_table
from klnorm_lib.study import Record
from klnorm_lib.study.stats import differences, t_interval
from klnorm_lib.sweep import grid
from klnorm_lib.sweep.membership import by_study


def refresh(name: str) -> str:
    """The card of a built-in encoder with its measured parts made anew from pretraining.json and the records.

    Only parts that the card has marks for are made. Raises ``LookupError`` when its comparison has no packaged record.
    """
    folder = HERE / name
    text = (folder / "README.md").read_text()
    for mark, make in PARTS.items():
        if f"<!-- {mark} -->" in text:
            body = make(name)
            text = re.sub(
                rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", lambda m, b=body: f"{m[1]}\n{b}\n{m[2]}", text, flags=re.S
            )
    return text


def recipe(name: str) -> str:
    """How it was pretrained and what it predicts of held-out text or speech, as a markdown table."""
    facts = json.loads((HERE / name / "pretraining.json").read_text())
    rows = _of_sound(facts) if "audio_seconds_seen" in facts else _of_text(facts)
    return "\n".join(["| | |", "|:--|:--|", *(f"| {k} | {v} |" for k, v in rows.items())]) + "\n"


def _of_text(facts: dict) -> dict[str, str]:
    config = facts["config"]
    rows = {
        "layers x width, heads": f"{config['layers']} x {config['hidden_size']}, {config['heads']}",
        "vocabulary": f"{config['vocab_size']:,} word pieces, lower case",
        "corpora": ", ".join(config["corpora"]),
        "tokens in the corpora": f"{facts['train_tokens']:,}",
        "tokens seen": f"{facts['tokens_seen']:,}",
        "steps x sequences x tokens": f"{facts['step']:,} x {config['batch_size']} x {config['length']}"
        + (", most of them cut into shorter pieces" if config.get("shorten") else ""),
        "peak learning rate": f"{config['learning_rate']:g}",
        "masked tokens": f"{config['mask_probability']:.0%}",
    }
    if config.get("teacher"):
        rows["teacher, in pretraining only"] = f"{config['teacher']}, its weight in the loss {config['distillation']:g}"
    return {
        **rows,
        **_time(facts),
        "held-out masked-token loss": f"{facts['heldout_loss']:.3f} nats",
        "held-out masked-token perplexity": f"{math.exp(facts['heldout_loss']):.1f}",
    }


def _of_sound(facts: dict) -> dict[str, str]:
    config = facts["config"]
    return {
        "layers x width, heads": f"{config['layers']} x {config['hidden_size']}, {config['heads']}",
        "parameters": f"{facts['parameters']:,}",
        "texts read aloud": ", ".join(config["corpora"]),
        "synthesised speech": f"{facts['corpus_seconds'] / 3600:.1f} hours, {facts['utterances']:,} utterances",
        "voices, languages, phonemes": f"{facts['voices']}, {facts['languages']}, {facts['phonemes']}",
        "speech and sound seen": f"{facts['audio_seconds_seen'] / 3600:.1f} hours, with changes of its own each time",
        "steps x words": f"{facts['step']:,} x {config['batch_size']}",
        "peak learning rate": f"{config['learning_rate']:g}",
        **_time(facts),
        "held-out phoneme accuracy of a frame": f"{facts['heldout_phoneme_accuracy']:.1%} "
        f"(always the most frequent: {facts['heldout_phoneme_chance']:.1%})",
    }


def _time(facts: dict) -> dict[str, str]:
    return {
        "time": f"{facts['seconds'] / 60:.0f} minutes on a shared {facts['device']}, threads used: {facts['threads']}"
    }


def counterpart(name: str) -> str:
    """The encoder against the same architecture with random weights, seed by seed, as a markdown table.

    Each arm's learning rate is the one that its study chose, by the mean validation score over the seeds; the test
    scores at that rate are paired by seed, and the 95 % interval of the mean difference is Student's t.
    """
    settings: dict[tuple, dict[str, list[Record]]] = defaultdict(dict)
    for (task, size, encoder, arm), records in card_claims.final(_records(name.replace("-", "_"))).items():
        if arm == "plain":
            settings[task, size][encoder] = records
    pairs = {at: of for at, of in settings.items() if {name, name + RANDOM} <= set(of)}
    if not pairs:
        raise LookupError(f"no packaged record compares {name} with {name}{RANDOM}; run the comparison first")
    lines = [
        "| task | labels | seeds | pretrained, mean | random, mean | difference, 95 % interval |",
        "|:--|--:|--:|--:|--:|:--|",
    ]
    for (task, size), of in sorted(pairs.items()):
        arms = [of[name], of[name + RANDOM]]
        change = differences(*map(card_claims.scores, arms))
        low, high = t_interval(change)
        lines.append(
            f"| {task} | {size} | {len(change)} | {' | '.join(map(_arm, arms))} "
            f"| {change.mean():+.3f} [{low:+.3f}, {high:+.3f}] |"
        )
    return "\n".join(lines) + "\n"


def _arm(records: Sequence[Record]) -> str:
    return f"{np.mean(list(card_claims.scores(records).values())):.3f} at {card_claims.chosen_rate(records[0])}"


def claims(name: str) -> str:
    """The encoder against its counterpart and the baseline, as a table and in words; see ``card_claims``."""
    study = card_claims.CLAIMS[name]
    return card_claims.claims_table(grid.load(study), card_claims.claims(grid.load(study), _records(study)))


def table(name: str) -> str:
    """The frozen features of every encoder on every task and size, as a markdown table; see ``card_table``."""
    study = card_table.STUDIES[name]
    return card_table.markdown(name, grid.load(study), _records(study))


@cache
def _studies() -> dict[str, list[Record]]:
    return by_study()


def _records(study: str) -> list[Record]:
    return _studies().get(study, [])


PARTS = {"recipe": recipe, "counterpart": counterpart, "claims": claims, "table": table}

if __name__ == "__main__":
    for built_in in names():
        (HERE / built_in / "README.md").write_text(refresh(built_in))
