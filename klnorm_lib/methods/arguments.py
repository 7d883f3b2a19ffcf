"""What the arguments of a method mean: written once, in its fields; read by docstring, command line and card."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from dataclasses import dataclass
from typing import Any

_TEXT = "klnorm_text"


@dataclass(frozen=True)
class Argument:
    """An argument of a method: name, default, and what it is, with unit and range."""

    name: str
    default: Any
    text: str


def argument(default: Any, text: str) -> Any:
    """A dataclass field with this default; ``text`` says what it is, with unit and range, in plain words."""
    return dataclasses.field(default=default, metadata={_TEXT: text})


def arguments(method: type) -> list[Argument]:
    """The arguments of a method's class in their order; the text of one that was made without :func:`argument` is "".

    The default of a required one, and of one with a ``default_factory``, is ``dataclasses.MISSING``.
    """
    return [Argument(f.name, f.default, f.metadata.get(_TEXT, "")) for f in dataclasses.fields(method)]


def describe(cls: type) -> None:
    """Add a list of its arguments to the docstring of a class that is about to become a dataclass."""
    own = {name: value for name, value in vars(cls).items() if isinstance(value, dataclasses.Field)}
    found = {**getattr(cls, "__dataclass_fields__", {}), **own}  # those of a base class come first
    lines = [
        textwrap.fill(
            f":param {name}: {f.metadata[_TEXT]} (default ``{f.default!r}``)", 112,
            subsequent_indent="    ", break_long_words=False, break_on_hyphens=False,
        )
        for name, f in found.items()
        if _TEXT in f.metadata
    ]  # fmt: skip
    # A dataclass with slots is made twice, the second time with the docstring of the first.
    if lines and cls.__dict__.get("__doc__") and f"\n{lines[0]}" not in cls.__doc__:
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__), "", *lines])
