"""What prose may not hold: numbers that somebody typed, and addresses in place of citations."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Left to right: what is no prose. A result belongs in code, and is printed or drawn from a record.
NOT_PROSE = (
    r"\A---\n.*?\n---\n",  # front matter
    r"(?ms)^[ >]*(`{3,}|~{3,}).*?^[ >]*\1[ \t]*$",  # code and directives in fences
    r"(?s)<!-- evidence -->.*?<!-- /evidence -->",  # made from records; tests/report/test_evidence.py compares them
    r"(?s)<!--.*?-->",
    r"(?s)\$\$.*?\$\$",
    r"(?s)\\begin\{(\w+\*?)\}.*?\\end\{\1\}",
    r"(?s)(?<![\\$])\$(?![\s$])[^$]*?(?<![\\\s])\$",
    r"\{[\w:.+-]+\}`[^`]*`",  # roles: citations, references to equations and pages
    r"(`+)[^`]+?\1",
    r"\]\([^)]*\)",  # targets of links
    r"<[^>]+>",
    r"https?://\S+",
)
# Names that contain a number, and say nothing that was measured.
SOFTWARE = "Python|PyTorch|torch|transformers|CUDA|jupyter-book"
NAMES = rf"arXiv:? ?\d{{4}}\.\d{{5}}|CC BY(?:-SA)? [234]\.\d|Apache-2\.0|(?:{SOFTWARE})[ -]\d+(?:\.\w+)*"
TYPED = re.compile(r"(?<![\w.])\d*\.\d+(?!\.?\d)|(?<![\w.])\d+(?:\.\d+)?\s?(?:%|per ?cent\b)|\b\d+e-?\d+\b")
DECLARED = re.compile(r"<!--\s*constants:(.*?)-->", re.DOTALL)


def typed_numbers(text: str) -> Iterator[str]:
    """Decimals and percentages in prose, outside maths, code, citations and declared constants.

    A page declares its constants in a comment, each with a reason in parentheses, separated by semicolons:
    ``<!-- constants: 95 % (the level of every interval of the book); 0.5 (a coin) -->``.
    """
    declared = {value for value, _ in constants(text)}
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text)
    text = re.sub(NAMES, " ", text)
    for match in TYPED.finditer(text):
        if _normal(match[0]) not in declared:
            around = " ".join(text[max(0, match.start() - 30) : match.end() + 20].split())
            advice = "print it from a record, or declare it as a constant"
            yield f"the number {match[0]} is typed in: “…{around}…”; {advice}"


def constants(text: str) -> list[tuple[str, str]]:
    """The declared constants of a page and their reasons."""
    found = []
    for comment in DECLARED.findall(text):
        for entry in filter(str.strip, comment.split(";")):
            match = re.fullmatch(r"\s*([\d.e-]+\s?(?:%|per ?cent)?)\s*\((.+)\)\s*", entry, re.DOTALL)
            if match is None:
                raise ValueError(f"{entry.strip()!r}: a declared constant reads `value (reason)`")
            found.append((_normal(match[1]), match[2]))
    return found


def _normal(number: str) -> str:
    return re.sub(r"\s?(%|per ?cent)", "%", number.strip())
