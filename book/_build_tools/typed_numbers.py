r"""Numbers that somebody typed, where a result should come from a record.

A decimal, a percentage or a gain in points, in digits or in words, is a problem in the prose, tables and alternative
texts of a page. It passes as maths, code, a citation, a part filled in from records, or a constant that the page
declares with its reason: ``<!-- constants: 95 % (the level of every interval of the book); 0.5 (a coin) -->``.
``typed_in_notebooks`` reads notebooks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# Fences whose body is no prose. Every other one is read: a note holds sentences, and a block without a language may be
# an output that was pasted.
LANGUAGES = {"bash", "shell", "console", "python", "pycon", "json", "yaml", "toml", "ini", "bibtex", "make", "mermaid"}
CODE = LANGUAGES | {"{math}", "{code}", "{code-block}", "{code-cell}", "{eval-rst}", "{bibliography}", "{toctree}"}
FENCE = re.compile(r"(?ms)^[ >]*(?P<ticks>`{3,}|~{3,})[ ]*(?P<kind>\S*)[^\n]*\n(?P<body>.*?)^[ >]*(?P=ticks)[ \t]*$")
COMMENT = re.compile(r"(?s)<!--.*?-->")
ALT = re.compile(r"(?s)<[^>]*?\b(?:alt|title|aria-label)=(?P<q>[\"'])(?P<said>.*?)(?P=q)[^>]*>")
# A formula or a piece of code that is nothing but a decimal or a percentage is a number in disguise; the defaults of a
# method, second in the rows of its card, are code.
DISGUISED = re.compile(
    r"(?<![\\$])\$\s*(?P<maths>[-+]?(?:\d*\.\d+(?:\s*\\?%)?|\d+\s*\\%))\s*\$"
    r"|(?<!`)`\s*(?P<code>[-+]?(?:\d*\.\d+\s*%?|\d+\s*%))\s*`(?!`)"
)
DEFAULT = re.compile(r"(?m)^\|\s*`[^`|]+`\s*\|\s*`[^`|]+`\s*\|")
# Left to right: what is no prose.
NOT_PROSE = (
    r"\A---\n(?s:.*?)\n---\n",  # front matter
    r"(?m)^[ >]*:(?!alt:)[\w-]+:.*$",  # options of a directive, such as :width: 50%
    r"(?s)\$\$.*?\$\$",
    r"(?s)\\begin\{(\w+\*?)\}.*?\\end\{\1\}",
    r"(?s)(?<![\\$])\$(?![\s$])[^$]*?(?<![\\\s])\$",
    r"\{[\w:.+-]+\}`[^`]*`",  # roles: citations, references, and numbers that the build takes from records
    r"(`+)[^`]+?\1",
    r"\]\([^)]*\)",  # targets of links
    r"<[^>]+>",
    r"https?://\S+",
    # Names that contain a number, and say nothing that was measured.
    r"arXiv:? ?\d{4}\.\d{5}|CC BY(?:-[A-Z]+)* [234]\.\d|Apache-2\.0",
    r"(?:Python|PyTorch|torch|transformers|CUDA|jupyter-book)[ -]\d+(?:\.\w+)*",
)
ONES = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
TENS = "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|half|quarter|third"
WORDS = rf"\b(?:{ONES}|{TENS})(?:[\s-]+(?:and|an?|of|to|or|{ONES}|{TENS}))*"
SHARE = r"(?:%|‰|percent\b|per[ -]cent\b|percentage points?\b|pp\b)"
FORWARD = r"(?:by|of|gains?|gained|loses?|lost|wins?|won|adds?|added|costs?|about|over|under|than|plus|minus)"
BACKWARD = r"(?:better|worse|higher|lower|more|less|above|below|ahead|behind)\b"
NUMBER = rf"(?:\d+(?:\.\d+)?|{WORDS})"
TYPED = re.compile(
    r"(?<![\w.])\d*\.\d+(?!\.?\d)(?:\s?%)?"
    rf"|(?<![\w.])\d+[\s~-]?{SHARE}"
    r"|\b\d+e-?\d+\b"
    r"|[½⅓⅔¼¾⅕⅛]"
    rf"|{WORDS}[\s-]+{SHARE}"
    rf"|(?<=\b){FORWARD}\s+(?P<after>{NUMBER}(?:(?:,|\s+or|\s+and|\s+to)\s+{NUMBER})*[\s-]+points?\b)"
    rf"|(?P<before>\b{NUMBER}[\s-]+points?)\s+{BACKWARD}",
    re.IGNORECASE,
)
LEVEL = re.compile(r"95\s?%(?=\s(?:[\w'’]+\s){0,2}intervals?\b)")  # of every interval of the book, and so no result
DECLARED = re.compile(r"<!--\s*constants:(.*?)-->", re.DOTALL)
ADVICE = "take it from a record, or declare it as a constant"


def typed_numbers(text: str, filled: Iterable[str] = (), declared: Iterable[str] = ()) -> Iterator[str]:
    """Decimals, percentages and points in prose, each with its line and the words around it.

    ``filled``: names of the parts between ``<!-- NAME -->`` and ``<!-- /NAME -->`` that are made from records, and
    compared with them elsewhere; ``declared``: constants declared elsewhere, beside those of the text.
    """
    allowed = {value for value, _ in constants(text)} | set(declared)
    prose = prose_of(text, filled)
    for place, typed in found_in(prose):
        if normal(typed) not in allowed and not LEVEL.match(prose, place):
            around = " ".join(prose[max(0, place - 30) : place + len(typed) + 20].split())
            line = prose.count("\n", 0, place) + 1
            yield f"line {line}: the number {' '.join(typed.split())} is typed in: “…{around}…”; {ADVICE}"


def found_in(prose: str) -> Iterator[tuple[int, str]]:
    """Place and text of every number in prose that may be a result."""
    for match in TYPED.finditer(prose):
        group = next((name for name in ("after", "before") if match[name]), 0)
        yield match.start(group), match[group]


def page_problems(text: str, filled: Iterable[str] = ()) -> Iterator[str]:
    """Everything that is wrong with the numbers of a page in Markdown: typed ones, and constants that it never uses."""
    yield from typed_numbers(text, filled)
    yield from idle_constants(text, {normal(typed) for _, typed in found_in(prose_of(text, filled))})


def prose_of(text: str, filled: Iterable[str] = ()) -> str:
    """The prose of a page, at its places; everything else is blank."""
    for name in filled:
        text = re.sub(rf"(?s)<!-- {name} -->.*?<!-- /{name} -->", _blank, text)
    text = FENCE.sub(lambda m: _blank(m) if m["kind"].lower() in CODE else _keep(m, "body"), text)
    text = COMMENT.sub(_blank, text)
    text = ALT.sub(lambda m: _keep(m, "said"), text)
    text = DEFAULT.sub(_blank, text)
    text = DISGUISED.sub(lambda m: _keep(m, "maths" if m["maths"] else "code").replace("\\", " "), text)
    for pattern in NOT_PROSE:
        text = re.sub(pattern, _blank, text)
    return text


def _blank(match: re.Match) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _keep(match: re.Match, group: str) -> str:
    """The match with everything blank but one group."""
    start, end = (place - match.start() for place in match.span(group))
    hidden = _blank(match)
    return hidden[:start] + match[group] + hidden[end:]


def constants(text: str) -> list[tuple[str, str]]:
    """The declared constants of a page and their reasons."""
    found = []
    for comment in DECLARED.findall(text):
        for entry in filter(str.strip, comment.split(";")):
            match = re.fullmatch(r"\s*([^()]*[^()\s])\s*\((.+)\)\s*", entry, re.DOTALL)
            if match is None:
                raise ValueError(f"{entry.strip()!r}: a declared constant reads `value (reason)`")
            found.append((normal(match[1]), match[2]))
    return found


def idle_constants(text: str, needed: Iterable[str]) -> Iterator[str]:
    """Declared constants that are not among those the page needs; the level of all intervals may always be declared."""
    for value, reason in constants(text):
        if value not in needed and value != "95%":
            yield f"the constant {value} ({' '.join(reason.split())}) is declared and stands nowhere; remove it"


def normal(number: str) -> str:
    """A number as it is compared with the declared ones."""
    number = re.sub(r"\s+", " ", number.strip().lower())
    return re.sub(r"[\s-]?(%|per[ -]?cent)", "%", number)
