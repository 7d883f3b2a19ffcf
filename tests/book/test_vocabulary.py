"""The book and the library use the field's terms: each private word is found, and ordinary uses are left alone."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from klnorm_lib.encoders.sources import HERE
from tests.book import NOTEBOOKS, PROSE, ROOT, vocabulary

CARDS = sorted(HERE.glob("*/README.md"))
PAGES = [*PROSE, *sorted(ROOT.glob("*.md")), *sorted((ROOT / "klnorm_lib/pages").glob("*.md")), *CARDS]
STUDIES = sorted((ROOT / "klnorm_lib/studies").glob("*.yaml"))
MODULES = sorted((ROOT / "klnorm_lib").rglob("*.py"))


def named(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_pages(path):
    made = ("evidence",) if "methods" in path.parts else ()  # its table has the labels of the records
    assert not list(vocabulary.of_page(path.read_text(encoding="utf-8"), made))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_notebooks(path):
    assert not list(vocabulary.of_notebook(nbformat.read(path, as_version=4)))


@pytest.mark.parametrize("path", STUDIES, ids=named)
def test_comments_of_studies(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not list(vocabulary.problems("\n".join(line.partition("#")[2] for line in lines)))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_library(path):
    strings = "tasks" not in path.parts  # those hold the texts of tasks
    assert not list(vocabulary.of_module(path.read_text(encoding="utf-8"), strings))


EACH = [pytest.param(word, id=word.private[0]) for word in vocabulary.WORDS]


@pytest.mark.parametrize("word", EACH)
def test_a_private_use_is_found_and_the_term_is_named(word):
    for text in word.private:
        assert any(word.say in problem for problem in vocabulary.problems(text)), text


@pytest.mark.parametrize("word", EACH)
def test_an_ordinary_use_is_left_alone(word):
    assert word.honest
    for text in word.honest:
        assert not list(vocabulary.of_page(text)), text


def test_every_part_of_a_notebook_is_read():
    figure = {"mystnb": {"image": {"alt": "Dots are replicates, beside them a sham."}}}
    cells = [
        new_markdown_cell("The reliance on the cue."),
        new_code_cell('print(f"it gains {100 * x:.1f} points")  # paired draw by draw'),
        new_code_cell("draw()", metadata=figure),
        new_code_cell("price = {'reliance': 1}['reliance']"),
    ]
    found = list(vocabulary.of_notebook(new_notebook(cells=cells)))
    for part in ("cell 0: line 1: “reliance”", "{} points”", "“draw by draw”", "cell 2: line 1: “sham”"):
        assert [problem for problem in found if part in problem], part
    assert not [problem for problem in found if "cell 3" in problem]  # names are no prose


def test_docstrings_strings_and_comments_of_a_module_are_read():
    assert list(vocabulary.of_module('def f():\n    """The price of a nat."""\n', strings=False))
    assert not list(vocabulary.of_module('price = 1\n\n\ndef f():\n    """The weight, ``price``."""\n'))
    for line in ('print(f"{x:.1f} points")', "x = 1  # a sham"):
        assert list(vocabulary.of_module(line))
        assert not list(vocabulary.of_module(line, strings=False))
