"""The arguments of a method as a table of its card, and what it states about itself, from its class."""

from __future__ import annotations

from klnorm_lib.methods import REGISTRY
from klnorm_lib.methods.arguments import arguments
from klnorm_lib.methods.contract.method import PROPERTIES


def table(name: str) -> str:
    """Every argument of a method with its default and what it is, and its properties with the defaults, as markdown."""
    cls = REGISTRY[name]
    rows = [f"| `{each.name}` | `{each.default!r}` | {each.text.replace('``', '`')} |" for each in arguments(cls)]
    stated = [f"`{each}`" for each in PROPERTIES if each in cls().properties]
    properties = f"Properties with the defaults, each tested: {', '.join(stated) or 'none'}."
    return "\n".join(["| Argument | Default | Meaning |", "|---|---|---|", *rows, "", properties])
