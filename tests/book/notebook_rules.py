"""Rules for notebooks: functions that take a notebook and return what is wrong with it, in words."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

COLAB_CELL = """\
import sys

if "google.colab" in sys.modules:
    %pip install -q "klnorm-lib @ git+{url}@main\""""
PARAMETERS_CELL = 'SCALE = "ci"  # "ci", "colab" or "paper"'
DRAWS = re.compile(r"\bplt\.(?:subplots|figure|subplot_mosaic|show)\(|\bsns\.\w*(?:plot|map|grid)\(|\.plot\.\w+\(")
LABELLED = re.compile(r"\$\$[ \t]*\((eq-[\w-]+)\)[ \t]*\n(.*?)(?=\n\s*\n\S|\Z)", re.DOTALL)
COMPUTED = re.compile(
    r"<small>Computed by\s((?:`[\w.]+`(?:,\s|\sand\s)?)+);\sasserted\sby\s((?:`[^`]+`(?:,\s|\sand\s)?)+)\.</small>"
)
PAPER_ADDRESS = re.compile(
    r"https?://(?:www\.)?(?:arxiv|doi|dx\.doi|aclanthology|openreview|proceedings|jmlr)\b[^\s)]*"
)


def code_cells(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    return ((i, c) for i, c in enumerate(notebook.cells) if c.cell_type == "code")


def markdown_cells(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    return ((i, c) for i, c in enumerate(notebook.cells) if c.cell_type == "markdown")


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def first_cell(notebook: NotebookNode) -> Iterator[str]:
    cell = notebook.cells[0]
    if cell.cell_type != "markdown" or not cell.source.startswith("# "):
        yield "cell 0 must be Markdown and start with `# Title`"
    for wanted, what in (
        (r"\?", "a question"),
        (r"(?i)able to (?:say|do|show|decide|explain)", "what the reader will be able to say"),
        (r"`ci`", "the expected time at scale `ci`"),
        (r"`colab`", "the expected time at scale `colab`"),
        (r"`paper`", "the expected time at scale `paper`"),
    ):
        if not re.search(wanted, cell.source):
            yield f"cell 0 must hold {what}"


def colab_cell(notebook: NotebookNode, url: str) -> Iterator[str]:
    cell = notebook.cells[1]
    if cell.cell_type != "code" or cell.source != COLAB_CELL.format(url=url):
        yield f"cell 1 must be exactly:\n{COLAB_CELL.format(url=url)}"
    if not {"hide-cell", "colab"} <= set(tags(cell)):
        yield 'cell 1 must have the tags "hide-cell" and "colab"'
    for index, other in code_cells(notebook):
        if index != 1 and re.search(r"\bpip3? install\b|\bconda install\b", other.source):
            yield f"cell {index} installs something; only cell 1 may"


def parameters_cell(notebook: NotebookNode) -> Iterator[str]:
    marked = [i for i, c in code_cells(notebook) if "parameters" in tags(c)]
    if marked != [2]:
        yield f'cell 2, and no other, must have the tag "parameters"; found at {marked}'
    elif notebook.cells[2].source != PARAMETERS_CELL:
        yield f"cell 2 must be exactly: {PARAMETERS_CELL}"


def size(notebook: NotebookNode) -> Iterator[str]:
    if not 20 <= len(notebook.cells) <= 30:
        yield f"{len(notebook.cells)} cells; 20 to 30 are allowed, one idea each"
    for index, cell in code_cells(notebook):
        if (lines := len(cell.source.splitlines())) > 40:
            yield f"cell {index} has {lines} lines; 40 are allowed, plumbing belongs in the library"


def stripped(notebook: NotebookNode) -> Iterator[str]:
    for index, cell in code_cells(notebook):
        if cell.outputs or cell.execution_count is not None:
            yield f"cell {index} holds outputs; run nbstripout --keep-id"


def form(notebook: NotebookNode) -> Iterator[str]:
    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        yield f"nbformat is {notebook.nbformat}.{notebook.nbformat_minor}, must be 4.5"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield 'the kernel must be "python3"'


def last_cell(notebook: NotebookNode) -> Iterator[str]:
    cell = notebook.cells[-1]
    if cell.cell_type != "code" or not re.search(r"\bversions\(\)", cell.source):
        yield "the last cell must print versions and hardware: klnorm_lib.pages.versions()"


def alternative_text(notebook: NotebookNode) -> Iterator[str]:
    for index, cell in code_cells(notebook):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if DRAWS.search(cell.source) and len(alt.split()) < 5:
            yield f'cell {index} draws; describe the figure in metadata {{"mystnb": {{"image": {{"alt": "…"}}}}}}'


def stands_alone(notebook: NotebookNode) -> Iterator[str]:
    for index, cell in code_cells(notebook):
        if re.search(r"%run\b|import_ipynb|nbimporter|from notebooks\b|import notebooks\b|\.ipynb\b", cell.source):
            yield f"cell {index} uses another notebook; a chapter stands alone"
        if re.search(r"set_num_threads|OMP_NUM_THREADS|MKL_NUM_THREADS", cell.source):
            yield f"cell {index} sets a number of threads; leave that to the machine"


def citations(notebook: NotebookNode) -> Iterator[str]:
    for index, cell in markdown_cells(notebook):
        for address in PAPER_ADDRESS.findall(cell.source):
            yield f"cell {index}: {address} stands where {{cite:p}}`key` should"


def ending(notebook: NotebookNode) -> Iterator[str]:
    text = "\n".join(c.source for _, c in markdown_cells(notebook))
    if not re.search(r"(?im)^#+ .*take.?away", text):
        yield "there is no section on the take-away"
    if not re.search(r"(?im)^#+ .*exercise", text):
        yield "there are no exercises"
    solutions = [(i, c) for i, c in code_cells(notebook) if "hide-input" in tags(c)]
    if not any("assert" in c.source for _, c in solutions):
        yield 'no solution is tested: a code cell with the tag "hide-input" and asserts'


def equations(notebook: NotebookNode, root: Path) -> Iterator[str]:
    """Each labelled equation is followed by the function that computes it and the test that asserts it."""
    for index, cell in markdown_cells(notebook):
        yield from (f"cell {index}: {problem}" for problem in equation_problems(cell.source, root))


def equation_problems(text: str, root: Path) -> Iterator[str]:
    for label, following in LABELLED.findall(text + "\n"):
        line = COMPUTED.search(following)
        if line is None:
            yield f"equation {label} is not followed by <small>Computed by `…`; asserted by `…`.</small>"
            continue
        for name in re.findall(r"`([^`]+)`", line[1]):
            if not importable(name):
                yield f"equation {label}: {name} cannot be imported"
        for node in re.findall(r"`([^`]+)`", line[2]):
            if not defines_test(node, root):
                yield f"equation {label}: there is no test {node}"


def importable(name: str) -> bool:
    """Whether ``package.module.attribute`` leads to something callable."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            value = getattr(value, part, None)
        return callable(value)
    return False


def defines_test(node: str, root: Path) -> bool:
    """Whether ``tests/file.py::[Class::]test_name`` is defined in that file."""
    path, *names = node.split("::")
    if not names or not (root / path).is_file():
        return False
    scope = ast.parse((root / path).read_text(encoding="utf-8")).body
    for name in names:
        found = [n for n in scope if getattr(n, "name", None) == name.split("[")[0]]
        if not found:
            return False
        scope = getattr(found[0], "body", [])
    return names[-1].startswith("test")
