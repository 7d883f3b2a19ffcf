"""A Sphinx extension: links in docstrings find an object under every path that Python finds it under.

The library reference describes each object once; a docstring may name it by its module, its package, or from the top.
"""

from __future__ import annotations

import importlib
from typing import Any

import pages
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def find(path: str) -> Any:
    """The object at a dotted path, or ``None``."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except (ImportError, ValueError):
            continue
        for part in parts[cut:]:
            value = getattr(value, part, None)
        return value
    return None


def described_as(path: str) -> str | None:
    """The path under which the reference describes the object at ``path``."""
    target = find(path)
    if target is None:
        return None
    for module, names in pages.described().items():
        for name in names:
            if find(f"{module}.{name}") is target:
                return f"{module}.{name}"
    return None


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Element | None:
    if node.get("refdomain") != "py":
        return None
    target, module = node["reftarget"], node.get("py:module")
    for path in filter(None, (target, module and f"{module}.{target}", f"klnorm_lib.{target}")):
        name = described_as(path)
        if name and name != target:
            domain = env.get_domain("py")
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
