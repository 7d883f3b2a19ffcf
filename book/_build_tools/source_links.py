"""The line below a labelled equation, with links: to the function's description, and to the test's source."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

LINE = re.compile(r"<small>Computed by.*?</small>", re.DOTALL)


def link_line(line: str, url: str) -> str:
    """``line`` with a reference for each function and an address for each test; linked lines stay as they are."""
    line = re.sub(r"(?<!})`(klnorm_lib(?:\.\w+)+)`", r"{py:obj}`\1`", line)
    return re.sub(r"(?<!\[)`(tests/[\w/]+\.py)(::[^`]+)`", rf"[`\1\2`]({url}/blob/main/\1)", line)


def link_notebooks(folder: Path, url: str) -> None:
    """Link the lines of every executed notebook in ``folder``."""
    for path in sorted(folder.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = LINE.sub(lambda match: link_line(match[0], url), cell.source)
        nbformat.write(notebook, path)
