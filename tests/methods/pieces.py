"""Which pieces of a method a checkout lacks, read from its files without importing any of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path


def missing(root: Path) -> list[str]:
    """One line for each piece that a method of ``root`` lacks; empty when every method is whole."""
    folder = root / "klnorm_lib/methods"
    defined = {name: (path, cls) for path in sorted(folder.rglob("*.py")) for name, cls in _methods(path)}
    registry = (folder / "registry.py").read_text("utf-8")
    imported = re.findall(r"(?m)^from klnorm_lib\.methods\.(\w+) import (\w+)$", registry)  # module and class
    rows = _rows(root / "tests/methods/cases.py")
    contents = (root / "_toc.yml").read_text("utf-8")
    lines = [
        f"klnorm_lib/methods/{module}.py, whose {cls} the registry imports"
        for module, cls in imported
        if not (folder / f"{module}.py").is_file() and not (folder / module).is_dir()
    ]
    for name, (path, cls) in defined.items():
        if (path.stem, cls) not in imported:
            lines.append(f"the import of {cls} in klnorm_lib/methods/registry.py, for {name}")
        if name not in rows:
            lines.append(f"a row for {name} in tests/methods/cases.py")
    cards = {name: root / f"book/methods/{name}.md" for name in {*defined, *(n for n in rows if n not in defined)}}
    lines += [f"the card book/methods/{name}.md" for name, card in sorted(cards.items()) if not card.is_file()]
    entries = re.findall(r"(?m)^ +- file: book/methods/(\w+)$", contents)
    return lines + [f"an entry book/methods/{name} in _toc.yml" for name in sorted(cards) if name not in entries]


def _methods(path: Path) -> list[tuple[str, str]]:
    """Name and class of the methods that a file defines: classes with a base that state their name."""
    found = []
    for node in ast.parse(path.read_text("utf-8")).body:
        if not isinstance(node, ast.ClassDef) or not node.bases:
            continue
        for line in node.body:
            targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
            value = getattr(line, "value", None)
            if any(getattr(t, "id", "") == "name" for t in targets) and isinstance(value, ast.Constant):
                found.append((value.value, node.name))
    return found


def _rows(path: Path) -> set[str]:
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "ROWS":
            return {key.value for key in node.value.keys}
    raise AssertionError(f"{path} has no table ROWS")
