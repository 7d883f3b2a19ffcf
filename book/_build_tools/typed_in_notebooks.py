"""Numbers that somebody typed into a notebook: its prose and alternative texts, its code, and what that code shows.

Code may hold numbers, but not results: a string that reads as a sentence is prose, a list of decimals with three digits
is a table that somebody copied, and a decimal with three digits that stands both in code and in an output was not
measured by it. The constants that any Markdown cell declares count for the whole notebook.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from nbformat import NotebookNode
from typed_numbers import ADVICE, constants, found_in, idle_constants, normal, prose_of, typed_numbers

DIGITS = 3
PLACES = re.compile(
    r"set_?\w*|[xy]lim|ax[hv]\w+|text|annotate|legend|colorbar|figure|subplots\w*|add_\w+"
)  # in a figure
DECIMAL = re.compile(r"(?<![\w.])\d*\.\d+(?![\w.])")


def problems(notebook: NotebookNode) -> Iterator[str]:
    """Everything that is wrong with the numbers of a notebook, executed or not."""
    text = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    allowed = {value for value, _ in constants(text)}
    needed: set[str] = set()
    trees = {i: _tree(c.source) for i, c in enumerate(notebook.cells) if c.cell_type == "code"}
    typed = {number for tree in trees.values() for number in _decimals(tree)}
    for index, cell in enumerate(notebook.cells):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        said = {"": [cell.source] if cell.cell_type == "markdown" else [], "alternative text, ": [alt]}
        if index in trees:
            said["code, "] = list(_sentences(trees[index]))
            yield from (f"cell {index}: {p}" for p in _tables(trees[index], allowed, needed))
            yield from (f"cell {index}: {p}" for p in _shown(cell, typed, allowed, needed))
        for where, texts in said.items():
            for part in texts:
                needed |= {normal(number) for _, number in found_in(prose_of(part))}
                yield from (f"cell {index}: {where}{p}" for p in typed_numbers(part, declared=allowed))
    yield from idle_constants(text, needed)


def _tree(source: str) -> ast.Module:
    return ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source))


def _sentences(node: ast.AST) -> Iterator[str]:
    """Strings of two words or more; of f-strings, what is not computed, with ``{}`` for what is."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        for part in node.values:
            if isinstance(part, ast.FormattedValue):  # whose format, such as .3f, is no sentence
                yield from _sentences(part.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"[a-z]\W+[a-z]", node.value):
        yield re.sub(r"\{[^{}]*\}", "{}", node.value)  # as str.format fills it
    else:
        for child in ast.iter_child_nodes(node):
            yield from _sentences(child)


def _tables(tree: ast.AST, allowed: set[str], needed: set[str]) -> Iterator[str]:
    """Lists, tuples and dictionaries with two or more different decimals of three digits."""
    for node in _data(tree):
        if isinstance(node, (ast.List, ast.Tuple, ast.Set, ast.Dict)):
            numbers = sorted(set(_decimals(node)))
            if len(numbers) > 1:
                needed.update(numbers)
                if not allowed.issuperset(numbers):
                    yield f"code: the numbers {', '.join(numbers)} are typed in as data; {ADVICE}"


def _decimals(tree: ast.AST) -> Iterator[str]:
    """Decimals of three digits or more in code."""
    for node in _data(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and _digits(repr(node.value)) >= DIGITS:
            yield repr(node.value)


def _data(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those of calls that place something in a figure, and so show no number."""
    if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Attribute) and PLACES.fullmatch(tree.func.attr)):
        yield tree
        for child in ast.iter_child_nodes(tree):
            yield from _data(child)


def _digits(number: str) -> int:
    return len(number.replace(".", "").lstrip("0")) if DECIMAL.fullmatch(number) else 0


def _shown(cell: NotebookNode, typed: set[str], allowed: set[str], needed: set[str]) -> Iterator[str]:
    """Numbers of the outputs of a cell, text and tables, that also stand in the notebook's code."""
    for number in sorted({n for text in _texts(cell.outputs) for n in DECIMAL.findall(text)} & typed):
        needed.add(number)
        if number not in allowed:
            yield f"output: the number {number} is shown, and typed into code; {ADVICE}"


def _texts(outputs: Iterable[NotebookNode]) -> Iterator[str]:
    for output in outputs:
        yield output.get("text", "")
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield re.sub(r"<[^>]+>", " ", value)
