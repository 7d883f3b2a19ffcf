"""The page on architectures: what was checked on a small model of every classifier of transformers. ``make matrix``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from klnorm_lib.pages.tables import to_markdown
from klnorm_lib.study import measurements

KINDS = {"text": "Text", "audio": "Sound", "image": "Images"}
COLUMNS = {
    "pooled": "P", "internal": "I", "dropout": "D", "guided": "G", "fisher": "F", "saved": "S", "padding": "N",
}  # fmt: skip
START = ("start",)  # what is checked on language models of which there is no classifier
SIGNS = {"ok": "✓", "refused": "r", "depends": "≠", "FAULT": "✗", "–": "–"}


def read() -> dict[str, Any]:
    """The packaged record, checked."""
    values = measurements.packaged("matrix")
    check(values)
    return values


def check(values: Any) -> None:
    """Raise ``ValueError`` where ``values`` do not fit ``studies/matrix.schema.json``, or lack a check."""
    measurements.fit_schema(values, "matrix", "`make matrix`")
    for name, answers in values["architectures"].items():
        wanted = COLUMNS if name.split("/")[0] in KINDS else START
        if list(answers) != list(wanted):
            raise ValueError(f"{name}: answers to {', '.join(answers)} instead of {', '.join(wanted)}")
        if name in values["not_built"]:
            raise ValueError(f"{name} was built, and is among those that were not")


def outcome(answer: str) -> str:
    """``ok``, ``refused``, ``depends``, ``FAULT`` or a dash for what does not apply."""
    return answer.split(":")[0]


def classifiers(names: Iterable[str]) -> list[str]:
    """The names among ``names`` that are of classifiers."""
    return [name for name in names if name.split("/")[0] in KINDS]


def counts(values: Mapping[str, Any]) -> pd.DataFrame:
    """How often each check of the classifiers ended in what way: one row a check."""
    rows, built = [], values["architectures"]
    for name in COLUMNS:
        found = Counter(outcome(built[architecture][name]) for architecture in classifiers(built))
        rows.append({"check": name, **{key: found.get(key, 0) for key in SIGNS}})
    return pd.DataFrame(rows)


def table(values: Mapping[str, Any], kind: str) -> pd.DataFrame:
    """One row an architecture of ``kind`` (``text``, ``audio`` or ``image``), one column a check, in ``SIGNS``."""
    rows = [
        {"architecture": f"`{name.split('/')[1]}`", **{COLUMNS[key]: SIGNS[outcome(a)] for key, a in answers.items()}}
        for name, answers in values["architectures"].items()
        if name.startswith(f"{kind}/")
    ]
    return pd.DataFrame(rows)


def reasons(values: Mapping[str, Any], kind: str) -> str:
    """Every answer other than ``ok`` in its own words, as a markdown list."""
    lines = []
    for name, answers in values["architectures"].items():
        if name.startswith(f"{kind}/"):
            said: dict[str, list[str]] = {}
            for key, answer in answers.items():
                if outcome(answer) not in ("ok", "–"):
                    said.setdefault(answer, []).append(COLUMNS[key])
            each = [f"{', '.join(keys)} {_plain(answer)}" for answer, keys in said.items()]
            lines += [f"- `{name.split('/')[1]}`: {'; '.join(each)}"] if each else []
    return "\n".join(lines) + "\n"


def _plain(answer: str, most: int = 240) -> str:
    text = re.sub(r"([\\`*_{}\[\]<>$|~^])", r"\\\1", answer)
    return text if len(text) <= most else text[: text.rfind(" ", 0, most)] + " …"


def page() -> str:
    """The whole page in markdown."""
    values = read()
    parts = {"counts": to_markdown(_spelt(counts(values)))}
    for kind, title in KINDS.items():
        rows, why = to_markdown(table(values, kind)), reasons(values, kind)
        parts[kind] = f"## {title}\n\n{rows}"
        if why.strip():
            parts[kind] += f"\n:::{{dropdown}} {title}: the refusals, and by how much logits move\n{why}:::\n"
    built, left = values["architectures"], values["not_built"]
    parts["left"] = "\n".join(f"- `{name}`: {_plain(why)}" for name, why in left.items())
    parts["versions"] = ", ".join(f"{name} {number}" for name, number in values["versions"].items())
    parts |= {"built": str(len(classifiers(built))), "all": str(len(classifiers([*built, *left])))}
    parts["models"] = _language_models(built)
    prose = Path(__file__).with_suffix(".md").read_text("utf-8")
    return re.sub(r"<!-- (\w+) -->", lambda mark: parts[mark[1]], prose)


def _spelt(found: pd.DataFrame) -> pd.DataFrame:
    """The counts under their signs, the letter of the column beside each check."""
    named = found.assign(check=[f"{COLUMNS[name]} {name}" for name in found["check"]])
    return named.rename(columns=SIGNS)


def _language_models(built: Mapping[str, Mapping[str, str]]) -> str:
    """In how many language models KL-Norm starts as the same function, and what the others say."""
    answers = {name: found["start"] for name, found in built.items() if name not in classifiers(built)}
    same = [f"`{name.split('/')[1]}`" for name, answer in answers.items() if answer == "ok"]
    others = [f"- `{name.split('/')[1]}`: {_plain(answer)}" for name, answer in answers.items() if answer != "ok"]
    text = f"The same function at the start, with the penalty in the loss, in {len(same)} of {len(answers)}:\n\n"
    return text + ", ".join(same) + ".\n" + ("\nThe others:\n\n" + "\n".join(others) if others else "")
