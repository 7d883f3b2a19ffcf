"""Words that the project once used in a sense of its own, the standard terms for them, and where to look for them."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

import typed_numbers
from nbformat import NotebookNode


@dataclass(frozen=True)
class Word:
    """A pattern to keep out, the term to use instead, uses that it must find and uses that it must leave alone."""

    pattern: str
    say: str
    private: tuple[str, ...]
    honest: tuple[str, ...]

    def found(self, text: str) -> Iterator[re.Match]:
        """Every private use in a text."""
        return re.finditer(self.pattern, text, re.IGNORECASE)


COUNT = r"(?:\{\}|\d+|two|three|four|five|six|seven|eight|nine|ten|twelve|few|fewer|several|many|more|further|\$k\$|k)"
WORDS = (
    Word(
        r"\bfloors?\b|\bin the house\b",
        "layer, package, or lower limit",
        ("It imports from the floors below it.", "a dotted floor"),
        ("`np.floor` rounds down.", "Flooring and household words."),
    ),
    Word(
        r"\b(?:no|little|more|enough|left|leaves?|found|with) room\b|\broom (?:above|for any)\b",
        "headroom (over frozen features, or over a constant answer)",
        ("Two of the tasks with room.", "That left no room for any method.", "room above a constant answer"),
        ("Real rooms and microphones.", "the echo of a room"),
    ),
    Word(
        rf"\bdraw by draw\b|\b(?:paired|final|tuning|equal|same) draws\b(?! of\b)"
        rf"|(?<!\w){COUNT} draws\b(?! (?:of dropout|of v|from)\b)"
        r"|\bover (?:the |its |all )?draws\b|\berrors? of the draws\b|\bin (?:each|every) draw\b"
        r"|\bpaired by draw\b|\bone (?:number )?(?:a|for each|per) draw\b",
        "replicate (a pair of split seed and model seed)",
        ("Arms are paired draw by draw.", "ten draws show", "{} draws of four arms", "the spread over draws"),
        (
            "Draw a sample from the prior.",
            "We draw the figure again.",
            "The number of draws of a Monte Carlo estimate.",
            "two draws of dropout for every example",
            "averaged over several random numbers",
        ),
    ),
    Word(
        r"\bplace by place\b|\bover (?:its |the |these |all )?(?:places|cells)\b"
        r"|\b(?:single|these|all) (?:places|cells)\b|\bcells? of (?:a|the) (?:study|results|figures?)\b"
        r"|\bplaces, (?:draws|replicates)\b|\beach (?:place|cell) on\b",
        "setting (task, number of labels and encoder)",
        ("The mean over the places of a study.", "single places", "a cell of the figure", "places, draws"),
        ("The next cell of the notebook prints it.", "in place of the head", "a cell that asserts them", "took place"),
    ),
    Word(
        rf"\bin (?:squared )?points\b|, points(?=[\"'\n;:]|$)|\(points\)|\bpoints of accuracy\b"
        r"|(?:\{\}|\d) points?\b(?! at\b)"
        rf"|\b(?:by|of|gains?) (?:one|half a|a|{COUNT}) points?\b|\bone point (?:to|on) either\b|\bshow one point\b"
        r"|(?<!percentage )\bpoints? (?:more|better|worse|higher|lower|less)\b",
        "percentage point (pp)",
        ("All differences are in points.", "{} points", "ax label, points", "It gains by three points."),
        ("One point for each seed.", "This points to a bug.", "a data point", "two percentage points better"),
    ),
    Word(
        r"\bpric(?:es?|ed|ing)\b|\b(?:dearer|dearest)\b|\b(?:cheaper|cheapest|dear) nats?\b",
        "KL weight, penalty",
        ("The price of one nat.", "A layer without its price.", "the cheapest nat"),
        ("`price_at` is a function.", "The reviews praise it.", "a cheaper machine"),
    ),
    Word(
        r"\bcharg(?:es?|ed|ing)\b",
        "penalise, penalty",
        ("It charges the loss.", "nats that are not charged"),
        ("A discharged battery.", "`charged` is a function."),
    ),
    Word(
        r"\bpull(?:s|ed|ing)?\b(?! requests?\b)",
        "penalty, penalise; shrink towards",
        ("A pull towards a prior.", "It pulls the weights."),
        ("Open a pull request.", "`pages.pull` reads it."),
    ),
    Word(
        r"\bpaid\b|\bpays?\b(?! attention\b)|\bpaying\b(?! attention\b)",
        "penalty, cost",
        ("The price is paid once.", "A sure classifier pays nothing."),
        ("Pay attention to the sign.", "`pay` is a name."),
    ),
    Word(
        r"\bh(?:old|olds|eld|olding) on to\b",
        "importance",
        ("What pretraining holds on to.",),
        ("It holds on average.", "holds onto-logical"),
    ),
    Word(
        r"\bin front of\b(?! (?:you|us)\b)|\bst(?:and|ands|ood|anding) before\b|\bst(?:and|ands|ood) in front\b",
        "upstream, applied before",
        ("The tensors in front of a site.", "A layer that stands before the head."),
        ("It proves one thing in front of you.", "the layer before the head", "as it stands, before training"),
    ),
    Word(
        r"(?<!@)\btwins?\b",
        "randomly initialised counterpart (of an encoder), counterpart (of a task)",
        ("Its random twin.", "trained on the twin"),
        ("The two are intertwined.", "`TWIN` is a name."),
    ),
    Word(r"\bshams?\b", "A/A control", ("Run a sham arm.",), ("The Shampoo optimiser.",)),
    Word(
        r"\breliances?\b",
        "shortcut gap",
        ("The reliance on the cue.",),
        ("A reliable estimate.", "It relies on torch.", "`reliance` is a key."),
    ),
    Word(r"\bcrews?\b", "workers", ("A crew of processes.",), ("A screw loose.",)),
    Word(r"\bparcels?\b", "batch", ("Runs are sent in parcels.",), ("`parcel` is a name.",)),
    Word(r"\bledgers?\b", "index", ("The ledger of runs.",), ("`Ledger` is a class.",)),
    Word(r"\bmeters?\b", "progress", ("A meter shows the time.",), ("The parameters of a speedometer.",)),
    Word(r"\bthaw(?:s|ed|ing)?\b", "to plain types", ("It thaws the fields.",), ("`thaw` is a name.",)),
    Word(
        r"\bdealt out\b|\blottery\b",
        "permuted at random, at random",
        ("Rates dealt out at random.", "a lottery ticket"),
        ("They dealt with it.",),
    ),
    Word(
        r"(?<![\w.%$\\])\.\d+(?![\d.]*[efg%/])",
        "a rate with a leading zero",
        ("A dropout of .1 everywhere.", "between .05 and .1"),
        ("A dropout of 0.1.", "The arm `uniform .1`.", "version 2.4.1", "`{:.2f}`", "%.2f", "+.3f"),
    ),
)


def problems(text: str) -> Iterator[str]:
    """Each private use in some prose, with its line and what to say instead."""
    for word in WORDS:
        for match in word.found(text):
            around = " ".join(text[max(0, match.start() - 30) : match.end() + 20].split())
            line = text.count("\n", 0, match.start()) + 1
            yield f"line {line}: “{match[0]}” in “…{around}…”; say {word.say}"


def of_page(text: str, made: tuple[str, ...] = ()) -> Iterator[str]:
    """Private words on a page in Markdown; ``made``: parts that hold labels of records, and are read elsewhere."""
    return problems(typed_numbers.prose_of(text, made))


def of_notebook(notebook: NotebookNode) -> Iterator[str]:
    """Private words in the Markdown, alternative texts, strings and comments of a notebook."""
    for index, cell in enumerate(notebook.cells):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        said = of_page(cell.source) if cell.cell_type == "markdown" else problems(said_in(cell.source))
        yield from (f"cell {index}: {problem}" for problem in [*said, *problems(alt)])


def said_in(source: str) -> str:
    """Strings and comments of some code, a line each; names in quotes, and what is between braces, are code."""
    source = re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source)  # IPython's own lines
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    said = (t.string for t in tokens if t.type in (tokenize.STRING, tokenize.COMMENT))
    prose = (text for text in said if not re.fullmatch(r"""['"]\w*['"]""", text))
    return "\n".join(re.sub(r"\{[^{}\n]*\}", "{}", text) for text in prose)


def of_module(source: str, strings: bool = True) -> Iterator[str]:
    """Private words in the docstrings of a module and, if ``strings``, in its other strings and its comments."""
    if strings:
        yield from problems(re.sub(r"``[^`]*``|:\w+:`[^`]*`", "", said_in(source)))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from problems(typed_numbers.prose_of(re.sub(r"``[^`]*``", "", ast.get_docstring(node) or "")))
