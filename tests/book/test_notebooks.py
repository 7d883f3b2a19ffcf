"""Every notebook keeps the rules."""

import re

import nbformat
import pytest
import repo_url

from tests.book import NOTEBOOKS, ROOT, notebook_rules

RULES = {
    "first cell": notebook_rules.first_cell,
    "Colab cell": lambda notebook: notebook_rules.colab_cell(notebook, repo_url.current(ROOT)),
    "parameters": notebook_rules.parameters_cell,
    "size": notebook_rules.size,
    "no outputs": notebook_rules.stripped,
    "form": notebook_rules.form,
    "versions last": notebook_rules.last_cell,
    "alt text": notebook_rules.alternative_text,
    "stands alone": notebook_rules.stands_alone,
    "citations": notebook_rules.citations,
    "take-away and exercises": notebook_rules.ending,
    "equations": lambda notebook: notebook_rules.equations(notebook, ROOT),
}


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda p: p.stem)
def path(request):
    return request.param


@pytest.mark.parametrize("rule", RULES)
def test_rule(path, rule):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    assert not list(RULES[rule](notebook))


def test_name_and_schema(path):
    assert re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name)
    nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))
