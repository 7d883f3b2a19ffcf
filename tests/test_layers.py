"""The layers: a package imports from those below it only, and there are no circles, lazy imports included."""

import grimp
import pytest
from importlinter import cli

from tests.book import ROOT


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("klnorm_lib", cache_dir=None)


def test_the_contracts_in_pyproject_hold(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(no_cache=True) == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out


def circles(graph) -> list[set[str]]:
    """Sets of modules each of which is imported, at some remove, by every other one of its set."""
    below = {module: set(graph.find_downstream_modules(module)) for module in graph.modules}
    found = {frozenset({m, *(o for o in below[m] if m in below[o])}) for m in graph.modules}
    return [set(circle) for circle in found if len(circle) > 1]


def test_no_module_takes_part_in_a_circle(graph):
    assert circles(graph) == []


def test_a_lazy_import_counts(tmp_path, monkeypatch):
    package = tmp_path / "small_house"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text("def f():\n    from small_house import two\n")
    (package / "two.py").write_text("import small_house.one\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert circles(grimp.build_graph("small_house", cache_dir=None)) == [{"small_house.one", "small_house.two"}]
