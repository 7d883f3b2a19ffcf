"""Equations that MathJax would print in red: found by names and balance, and by MathJax where there is a browser."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bs4 import BeautifulSoup

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DEFINED = re.compile(r"\\(?:newcommand|renewcommand|def|DeclareMathOperator)\*?\s*\{?\\([A-Za-z]+)")


def names_known(script: str) -> set[str]:
    """Every command and environment in MathJax's tables, read from its script (its tables are JavaScript objects)."""
    patterns = (r'[{,]"?([A-Za-z]+\*?)"?:', r'\["([A-Za-z]+\*?)",', r'"\\\\([A-Za-z]+)":')
    return {name for pattern in patterns for name in re.findall(pattern, script)}


def formula_problems(formula: str, known: set[str]) -> Iterator[str]:
    """Unknown commands and environments, and what is opened but not closed."""
    body = re.sub(r"(?<!\\)%.*", "", formula)
    own = set(DEFINED.findall(body))
    for name in sorted(set(re.findall(r"\\([A-Za-z]+)", body)) - known - own):
        yield f"unknown command \\{name}"
    for name in sorted(set(re.findall(r"\\begin\{([^}]*)\}", body)) - known):
        yield f"unknown environment {name}"
    depth = 0
    for brace in re.findall(r"(?<!\\)(?:\\\\)*([{}])", body):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            break
    if depth:
        yield "unbalanced braces"
    for opening, closing in ((r"\\left(?![A-Za-z])", r"\\right(?![A-Za-z])"), (r"\\begin\{", r"\\end\{")):
        if len(re.findall(opening, body)) != len(re.findall(closing, body)):
            yield f"unbalanced {opening[2:6]} … {closing[2:5]}"
    if re.search(r"\^\s*(?:\{[^{}]*\}|[^{}\\\s])\s*\^|_\s*(?:\{[^{}]*\}|[^{}\\\s])\s*_", body):
        yield "double exponent or double subscript"


def typeset_problems(formulas: list[str], script: Path, browser: str) -> dict[int, str]:
    """What MathJax itself says: all formulas on one page, in a headless browser; index of formula to message."""
    spans = "\n".join(f'<div id="f{i}">{html.escape(f)}</div>' for i, f in enumerate(formulas))
    page = (
        "<!doctype html><meta charset=utf-8>"
        "<script>MathJax = {options: {enableMenu: false}, tex: {tags: 'none'}}</script>"
        f'<script src="{script.resolve().as_uri()}"></script><body>{spans}</body>'
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "formulas.html")
        path.write_text(page, encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"]
        flags += ["--virtual-time-budget=60000", f"--user-data-dir={folder}/profile"]
        dom = subprocess.run([browser, *flags, path.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    divisions = BeautifulSoup(dom.stdout, "html.parser").select("div[id^=f]")
    found = {}
    for index, division in enumerate(divisions):
        error = division.select_one("[data-mjx-error]")
        if error:
            found[index] = error["data-mjx-error"]
        elif not division.select_one("mjx-container"):
            found[index] = "not typeset"
    return found


def problems(formulas: dict[str, str], script: Path) -> Iterator[str]:
    """Problems of every formula; ``formulas`` maps its source, delimiters included, to the page that shows it."""
    known = names_known(script.read_text(encoding="utf-8"))
    sources = list(formulas)
    said = set()
    for index, formula in enumerate(sources):
        for problem in formula_problems(formula[2:-2], known):
            said.add(index)
            yield f"{formulas[formula]}: {problem} in {formula[:70]!r}"
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("== no browser here: equations were checked by names and balance, not by MathJax itself")
        return
    for index, message in typeset_problems(sources, script, browser).items():
        if index not in said:
            yield f"{formulas[sources[index]]}: MathJax says {message!r} of {sources[index][:70]!r}"
