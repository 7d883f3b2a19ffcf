"""The page on the encoders that ship: how they were pretrained, what they know and do not know, and their cards."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from math import prod
from pathlib import Path

from klnorm_lib.encoders.sources import HERE, names
from klnorm_lib.figures import encoders, style
from klnorm_lib.figures.embed import as_html
from klnorm_lib.pages import card_claims, card_table
from klnorm_lib.pages.masked_words import GAP, fill, neighbours
from klnorm_lib.study import Record
from klnorm_lib.sweep import grid
from klnorm_lib.sweep.membership import by_study

SENTENCES = (
    f"the capital of france is {GAP}.",
    f"he opened the {GAP} and walked in.",
    f"the film was long and {GAP}.",
    f"the children {GAP} playing in the garden.",
    f"the key to the old cabinets {GAP} lost.",
    f"she did not like the book, because it was {GAP}.",
)
WORDS = ("king", "river", "monday", "happy", "doctor", "france")


@cache
def _records() -> dict[str, list[Record]]:
    return by_study()


def page() -> str:
    """The whole page in markdown; figures show what the records hold by now."""
    text = [n for n in names() if (HERE / n / "tokenizer.json").is_file()]
    claims, ladder = _figures()
    parts = {"sizes": _sizes(), "gaps": gaps_table(text), "alike": alike_table(text)}
    parts |= {"claims": claims, "ladder": ladder, "cards": "\n".join(map(_card, names()))}
    prose = Path(__file__).with_suffix(".md").read_text("utf-8")
    return re.sub(r"<!-- (\w+) -->", lambda mark: parts[mark[1]], prose)


def _card(name: str) -> str:
    text = re.sub(r"\A---\n.*?\n---\n", "", (HERE / name / "README.md").read_text("utf-8"), flags=re.DOTALL)
    bare = re.sub(r"<!-- (?:/?\w+|constants:.*?) -->\n", "", text)
    return re.sub(r"(?m)^(#+ )", r"##\1", bare)


def _sizes() -> str:
    """What each encoder is, in one row."""
    rows = ["| encoder | takes | layers x width | parameters | pretrained for |", "|:--|:--|--:|--:|--:|"]
    for name in names():
        config = json.loads((HERE / name / "config.json").read_text("utf-8"))
        pretraining = json.loads((HERE / name / "pretraining.json").read_text("utf-8"))
        takes = "text" if (HERE / name / "tokenizer.json").is_file() else "speech and sound, 16 kHz"
        size = f"{config['num_hidden_layers']} x {config['hidden_size']}"
        time = f"{pretraining['seconds'] / 60:.0f} minutes on a {pretraining['device']}"
        rows.append(f"| `{name}` | {takes} | {size} | {_parameters(name) / 1e6:.1f} million | {time} |")
    return "\n".join(rows) + "\n"


def _parameters(name: str) -> int:
    from safetensors import safe_open

    total = 0
    for file in sorted((HERE / name).glob("*.safetensors")):
        with safe_open(file, "np") as weights:
            total += sum(prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
    return total


def gaps_table(encoders: list[str]) -> str:
    """What each text encoder puts into the gaps of ``SENTENCES``, as a markdown table."""
    rows = [f"| sentence | {' | '.join(encoders)} |", f"|:--|{':--|' * len(encoders)}"]
    for sentence in SENTENCES:
        cells = [", ".join(f"{_word(w)} {p:.0%}" for w, p in fill(name, sentence)) for name in encoders]
        rows.append(f"| {sentence.replace(GAP, '[ ]')} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def alike_table(encoders: list[str]) -> str:
    """The words that each text encoder takes to be like those of ``WORDS``, as a markdown table."""
    rows = [f"| word | {' | '.join(encoders)} |", f"|:--|{':--|' * len(encoders)}"]
    for word in WORDS:
        cells = [", ".join(w for w, _ in neighbours(name, word)) for name in encoders]
        rows.append(f"| {word} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _word(piece: str) -> str:
    return f"`{piece}`" if not piece.isalpha() else piece


def _figures() -> tuple[str, str]:
    """The forest plot of all claims with its words, and the scores against labels; empty without records."""
    style.use()
    grids = {name: grid.load(study) for name, study in card_claims.CLAIMS.items()}
    found = {name: card_claims.claims(of, _records().get(of.name, [])) for name, of in grids.items()}
    cards = {name: claims for name, claims in found.items() if claims}
    first = second = ""
    if cards:
        words = {name: card_claims.in_words(grids[name], claims) for name, claims in cards.items()}
        alt = " ".join(["Forest plot.", *(f"{name}: {text.replace('**', '')}" for name, text in words.items())])
        caption = "Small dots: seeds. Marks: means. Bars: intervals of the mean. Triangles: zero is left out."
        first = as_html(encoders.forest({name: rows(found) for name, found in cards.items()}), alt, caption)
        first += "\n\n" + "\n\n".join(f"`{name}`. {text}" for name, text in words.items())
    for name, study in card_table.STUDIES.items():
        scores = card_table.scores_by_encoder(grid.load(study), _records().get(study, []))
        if scores:
            arms = ", ".join(next(iter(scores.values())))
            alt = f"Lines of the mean score against the number of labels, for {arms}."
            caption = f"Frozen features and a linear model on them. The table is on the card of {name}."
            second = as_html(
                encoders.ladder(card_table.mean_of_tasks(scores), len({task for task, *_ in scores})), alt, caption
            )
    return first, second


def rows(found: Sequence[card_claims.Claim]) -> list[encoders.Row]:
    """The rows of the forest plot: the encoder minus each other arm, task by task."""
    return [
        encoders.Row(f"{claim.task}: {_short(other.name)}", other.change, other.low, other.high, other.verdict)
        for claim in found
        for other in claim.against
    ]


def _short(name: str) -> str:
    return "random" if name.endswith(":random") else name.split(",")[0]
