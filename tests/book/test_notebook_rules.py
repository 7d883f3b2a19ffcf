"""The rules for notebooks: one that keeps them passes, and each way of breaking them is noticed."""

import copy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.book import ROOT, notebook_rules
from tests.book.test_notebooks import RULES

URL = "https://github.com/org/repo"
EQUATION = """Some words.

$$
x = 1
$$ (eq-one)

<small>Computed by `klnorm_lib.functional.kl_diag_gaussian`; asserted by
`tests/book/test_notebook_rules.py::test_good_notebook`.</small>
"""


def code(source, *tags, **metadata):
    cell = new_code_cell(source)
    cell.metadata.update(metadata)
    if tags:
        cell.metadata["tags"] = list(tags)
    return cell


@pytest.fixture
def notebook():
    first = "# Title\n\nWhy? You will be able to say why.\n\n`ci` seconds, `colab` minutes, `paper` hours."
    figure = {"mystnb": {"image": {"alt": "One line that rises from left to right."}}}
    cells = [
        new_markdown_cell(first),
        code(notebook_rules.COLAB_CELL.format(url=URL), "hide-cell", "colab"),
        code(notebook_rules.PARAMETERS_CELL, "parameters"),
        new_markdown_cell(EQUATION),
        code("fig, ax = plt.subplots()", **figure),
        *(new_markdown_cell(f"Idea {i} {{cite:p}}`key`.") for i in range(12)),
        new_markdown_cell("## Take-away"),
        new_markdown_cell("## Exercises"),
        code("assert 1 + 1 == 2", "hide-input"),
        code("import klnorm_lib.pages\n\nklnorm_lib.pages.versions()"),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return new_notebook(cells=cells, metadata=metadata, nbformat_minor=5)


def judge(rule, notebook):
    if rule == "Colab cell":
        return list(notebook_rules.colab_cell(notebook, URL))
    return list(RULES[rule](notebook))


@pytest.mark.parametrize("rule", RULES)
def test_good_notebook(rule, notebook):
    assert judge(rule, notebook) == []


def set_source(index, source):
    return lambda nb: nb.cells[index].update(source=source)


def set_metadata(index, **metadata):
    return lambda nb: nb.cells[index].update(metadata=nbformat.from_dict(metadata))


BROKEN = {
    "no title": ("first cell", set_source(0, "Why? You will be able to say; `ci` `colab` `paper`")),
    "no question": ("first cell", set_source(0, "# T\n\nYou will be able to say; `ci` `colab` `paper`")),
    "nothing to say": ("first cell", set_source(0, "# T\n\nWhy? `ci` `colab` `paper`")),
    "no time at colab": ("first cell", set_source(0, "# T\n\nWhy? You will be able to say; `ci` `paper`")),
    "other repository": (
        "Colab cell",
        set_source(1, notebook_rules.COLAB_CELL.format(url="https://github.com/else/where")),
    ),
    "pins torch": ("Colab cell", set_source(1, notebook_rules.COLAB_CELL.format(url=URL) + ' "torch==2.0"')),
    "untagged Colab cell": ("Colab cell", set_metadata(1)),
    "second installation": ("Colab cell", set_source(4, "%pip install numpy")),
    "no parameters": ("parameters", set_metadata(2)),
    "other scale": ("parameters", set_source(2, 'SCALE = "paper"')),
    "two parameters cells": ("parameters", set_metadata(4, tags=["parameters"])),
    "too few cells": ("size", lambda nb: nb.cells.pop(5) and nb.cells.pop(5)),
    "too many cells": ("size", lambda nb: nb.cells.extend(copy.deepcopy(nb.cells[5:16]))),
    "long cell": ("size", set_source(4, "x = 1\n" * 41)),
    "outputs": ("no outputs", lambda nb: nb.cells[4].outputs.append({"output_type": "stream"})),
    "count": ("no outputs", lambda nb: nb.cells[4].update(execution_count=1)),
    "old format": ("form", lambda nb: nb.update(nbformat_minor=4)),
    "other kernel": ("form", lambda nb: nb.metadata.kernelspec.update(name="conda-env")),
    "no versions": ("versions last", set_source(-1, "print('end')")),
    "no alt text": ("alt text", set_metadata(4)),
    "lazy alt text": ("alt text", set_metadata(4, mystnb={"image": {"alt": "A plot"}})),
    "runs another": ("stands alone", set_source(4, "%run 03_other.ipynb")),
    "sets threads": ("stands alone", set_source(4, "torch.set_num_threads(1)")),
    "address": ("citations", set_source(5, "See https://arxiv.org/abs/2212.11275.")),
    "no take-away": ("take-away and exercises", set_source(17, "## The end")),
    "no exercises": ("take-away and exercises", set_source(18, "## The end")),
    "untested solution": ("take-away and exercises", set_source(19, "1 + 1")),
    "unnamed function": ("equations", set_source(3, "$$\nx\n$$ (eq-one)\n\nWords.")),
    "no such function": ("equations", set_source(3, EQUATION.replace("kl_diag_gaussian", "no_such"))),
    "no such module": ("equations", set_source(3, EQUATION.replace("klnorm_lib.functional", "klnorm_lib.no_such"))),
    "no such test": ("equations", set_source(3, EQUATION.replace("test_good_notebook", "test_no_such"))),
    "no such file": ("equations", set_source(3, EQUATION.replace("test_notebook_rules.py", "no_such.py"))),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_notebook(fault, notebook):
    rule, breaks = BROKEN[fault]
    breaks(notebook)
    assert judge(rule, notebook)


def test_every_rule_can_fail():
    assert {rule for rule, _ in BROKEN.values()} == set(RULES)


def test_two_equations_in_one_cell_are_both_looked_at():
    second = EQUATION.replace("eq-one", "eq-two").replace("kl_diag_gaussian", "no_such")
    assert [p for p in notebook_rules.equation_problems(EQUATION + "\n" + second, ROOT) if "eq-two" in p]
    assert not list(notebook_rules.equation_problems(EQUATION + "\n" + EQUATION.replace("eq-one", "eq-two"), ROOT))


def test_test_nodes_in_classes_and_with_parameters():
    assert notebook_rules.defines_test("tests/book/test_notebook_rules.py::test_broken_notebook[no title]", ROOT)
    assert not notebook_rules.defines_test("tests/book/test_notebook_rules.py::judge", ROOT)
    assert not notebook_rules.defines_test("tests/book/test_notebook_rules.py", ROOT)
