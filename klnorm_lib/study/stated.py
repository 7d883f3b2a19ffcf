"""What the source of the methods states of them, read without importing it: torch takes seconds to import.

A wrong name or value is refused by :func:`check` at once; what it lets pass is checked by the method's class.
"""

from __future__ import annotations

import ast
import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import klnorm_lib
from klnorm_lib.study.fit_protocol import named_fits

PLAIN, PLUS = "plain", "+"
_FOLDER = Path(klnorm_lib.__file__).parent / "methods"
_NUMBER = r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)"
# How the text of an argument says its range, and what a number must then hold.
_RANGES = (
    (rf"\bat least {_NUMBER}", lambda value, end: value >= end),
    (rf"\babove {_NUMBER}", lambda value, end: value > end),
    (rf"\bat most {_NUMBER}", lambda value, end: value <= end),
    (rf"\bbelow {_NUMBER}", lambda value, end: value < end),
    (rf"\bin \[{_NUMBER}, ", lambda value, end: value >= end),
    (rf"\bin \[[^,]+, {_NUMBER}\]", lambda value, end: value <= end),
    (rf"\bin \[[^,]+, {_NUMBER}\)", lambda value, end: value < end),
)


@dataclass(frozen=True)
class Stated:
    """An argument of a method: its annotation and the text beside it."""

    annotation: str
    text: str

    def complaint(self, value: Any) -> str | None:
        """What ``value`` should be and is not; ``None`` where nothing can be said."""
        if self.annotation == "str":
            words = re.findall(r"``(\w+)``", self.text)
            known = not words or (isinstance(value, str) and value in words)
            return None if known else f"one of {', '.join(dict.fromkeys(words))}"
        if value is None and self.annotation.endswith("| None"):
            return None
        if self.annotation == "str | None":
            return None if isinstance(value, (str, os.PathLike)) else "a name or a path"
        if self.annotation == "bool":
            return None if isinstance(value, bool) else "True or False"
        if self.annotation.startswith("Mapping"):
            return None if isinstance(value, Mapping) else "a mapping, such as {'embeddings': 0.1}"
        if self.annotation.removesuffix(" | None") not in ("float", "int"):
            return None
        kind = Integral if self.annotation.startswith("int") else Real
        holds = not isinstance(value, bool) and isinstance(value, kind) and math.isfinite(value)
        ranges = [(found[0], holds and test(value, float(found[1]))) for found, test in self._ranges()]
        if holds and all(ok for _, ok in ranges):
            return None
        what = "a whole number" if self.annotation.startswith("int") else "a finite number"
        return " ".join([what, " and ".join(words for words, _ in ranges)]).strip()

    def _ranges(self):
        return [(found, test) for pattern, test in _RANGES if (found := re.search(pattern, self.text))]


@cache
def own() -> dict[str, dict[str, Stated]]:
    """Name -> arguments of every method of the library, those of its base classes first."""
    classes = {}
    for path in sorted(_FOLDER.glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name] = node
    named = {name: node for node in classes.values() if (name := _name(node)) is not None}
    return {name: _arguments(node, classes) for name, node in named.items()}


def methods() -> list[str]:
    """Every name that fine-tuning takes: ``plain``, the methods of the library, and those of other packages."""
    return [PLAIN, *own(), *(point.name for point in metadata.entry_points(group="klnorm_lib.methods"))]


def names() -> list[str]:
    """Every name that ``Run.method`` takes: those of :func:`methods`, and the other ways to fit."""
    return [*methods(), *(fit.name for fit in named_fits())]


def check(method: str, values: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for a method or a hyperparameter that there is not, or a value outside what is stated.

    ``method``: of fine-tuning, or several with ``+`` between them, whose hyperparameters are called ``method.field``.
    """
    parts = method.split(PLUS)
    for part in parts:
        if part not in own() and part not in methods():
            if part in names():
                raise ValueError(f"{part!r} is a way to fit, not a change of the model: it cannot be joined by {PLUS}")
            near = difflib.get_close_matches(part, names(), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"unknown method {part!r}{hint} There are: {', '.join(names())}")
    for key, value in values.items():
        part, dot, field = key.partition(".") if len(parts) > 1 else (method, ".", key)
        if not dot or part not in parts:
            raise ValueError(
                f"{method} has no hyperparameter {key}; write METHOD.FIELD, where METHOD is one of {', '.join(parts)}"
            )
        if part == PLAIN:
            raise ValueError(f"plain has no hyperparameters, got {key}")
        stated = own().get(part)
        if stated is None:  # of another package
            continue
        if field not in stated:
            raise ValueError(f"{part} has no hyperparameter {field}; it has {', '.join(stated)}")
        complaint = stated[field].complaint(value)
        if complaint is not None:
            raise ValueError(f"{part}: {field} must be {complaint}, got {value!r}; see `klnorm methods {part}`")


def _name(node: ast.ClassDef) -> str | None:
    for line in node.body:
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        value = getattr(line, "value", None)
        if isinstance(target, ast.Name) and target.id == "name" and isinstance(value, ast.Constant):
            return value.value
    return None


def _arguments(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> dict[str, Stated]:
    found: dict[str, Stated] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            found |= _arguments(classes[base.id], classes)
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            annotation = ast.unparse(line.annotation)
            if not annotation.startswith("ClassVar"):
                found[line.target.id] = Stated(annotation, _text(line.value))
    return found


def _text(default: ast.expr | None) -> str:
    """The second argument of ``argument(default, text)``."""
    if isinstance(default, ast.Call) and len(default.args) == 2 and isinstance(default.args[1], ast.Constant):
        return str(default.args[1].value)
    return ""
