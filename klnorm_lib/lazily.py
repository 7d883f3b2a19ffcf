"""Names of a package that are imported when they are first asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``(__getattr__, __dir__, __all__)`` of a package whose ``__init__`` imports nothing.

    ``homes``: name -> module of the package that it comes from. A module of the package is an attribute as well, as it
    would be if the package had imported it. So a command that is given a wrong argument can say so before torch, which
    takes seconds to import.
    """

    def getattr_(name: str) -> Any:
        module = f"{package}.{homes.get(name, name)}"
        if name in homes:
            value = getattr(importlib.import_module(module), name)
        elif not name.startswith("_") and importlib.util.find_spec(module) is not None:
            value = importlib.import_module(module)
        else:
            raise AttributeError(f"{package} has no {name!r}; it has {', '.join(sorted(homes))}")
        setattr(sys.modules[package], name, value)
        return value

    return getattr_, lambda: sorted(homes), sorted(homes)
