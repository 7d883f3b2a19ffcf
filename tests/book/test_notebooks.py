"""Every notebook obeys the law."""

import re

import nbformat
import pytest
import repo_url

from tests.book import NOTEBOOKS, ROOT, law

RULES = {
    "first cell": law.first_cell,
    "Colab cell": lambda notebook: law.colab_cell(notebook, repo_url.current(ROOT)),
    "parameters": law.parameters_cell,
    "size": law.size,
    "no outputs": law.stripped,
    "form": law.form,
    "versions last": law.last_cell,
    "alt text": law.alternative_text,
    "stands alone": law.own_feet,
    "citations": law.citations,
    "take-away and exercises": law.ending,
    "equations": lambda notebook: law.equations(notebook, ROOT),
}


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda p: p.stem)
def path(request):
    return request.param


@pytest.mark.parametrize("rule", RULES)
def test_law(path, rule):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    assert not list(RULES[rule](notebook))


def test_name_and_schema(path):
    assert re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name)
    nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))
