"""Execution, the copied MathJax, and the pages that the build writes."""

import shutil

import assemble
import execute
import latex
import nbformat
import pages
import pytest
import source_links
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.exceptions import PapermillExecutionError


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Writes a small notebook into a folder of its own, and returns its path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))

    def write(*sources):
        parameters = new_code_cell('SCALE = "ci"', metadata={"tags": ["parameters"]})
        cells = [new_markdown_cell("# A title"), parameters, *map(new_code_cell, sources)]
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        path = tmp_path / "notebooks/01_a.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
        return path

    return write


def test_execution_sets_the_scale_and_says_so(notebook, tmp_path):
    source = notebook("print(SCALE)", "open('dropping.txt', 'w').close()")
    before = source.read_bytes()
    target = tmp_path / "build/src/notebooks/01_a.ipynb"
    seconds = execute.execute(source, target, "paper")
    executed = nbformat.read(target, as_version=4)
    injected = next(c for c in executed.cells if "injected-parameters" in c.metadata.get("tags", []))
    assert "remove-cell" in injected.metadata["tags"]
    assert [c.outputs[0].text for c in executed.cells if c.source == "print(SCALE)"] == ["paper\n"]
    assert executed.cells[0].source.startswith("# 01 · A title\n")
    assert "scale `paper`" in executed.cells[0].source
    assert executed.metadata["book"] == {"scale": "paper", "seconds": round(seconds, 1)}
    assert source.read_bytes() == before
    assert not list(tmp_path.rglob("dropping.txt"))

    status = pages.status(tmp_path / "build/src")
    assert "| [01 · A title](../notebooks/01_a.ipynb) | paper |" in status
    assert "| torch | " in status


def test_a_failing_notebook_names_its_cell_and_its_error(notebook, tmp_path, monkeypatch, capsys):
    source = notebook("1 + 1", "raise ValueError('no such thing')")
    target = tmp_path / "build/src/notebooks/01_a.ipynb"
    target.parent.mkdir(parents=True)
    target.write_text("an older execution")
    monkeypatch.setattr("sys.argv", ["execute.py", str(source), str(target)])
    assert execute.main() == 1
    said = capsys.readouterr().err
    assert "01_a.ipynb, cell 4" in said
    assert "ValueError: no such thing" in said
    assert not target.exists()


def test_a_notebook_cannot_lean_on_the_repository(notebook, tmp_path):
    source = notebook("open('../notebooks/01_a.ipynb')")
    with pytest.raises(PapermillExecutionError, match="FileNotFoundError"):
        execute.execute(source, tmp_path / "build/src/notebooks/01_a.ipynb", "ci")


@pytest.fixture(scope="module")
def mathjax(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mathjax")
    assemble.copy_mathjax(folder)
    return folder


def test_mathjax_comes_from_a_package_and_only_what_a_page_needs(mathjax):
    assert (mathjax / "tex-mml-chtml.js").stat().st_size > 2**20
    assert len(list((mathjax / "output/chtml/fonts/woff-v2").glob("*.woff"))) > 20
    assert sum(p.stat().st_size for p in mathjax.rglob("*") if p.is_file()) < 4 * 2**20


FORMULAS = [
    r"\tfrac12\left[\mathrm{expm1}(t) - t + \Big(\frac{\mu-\mu_p}{\sigma_p}\Big)^2\right]",
    r"\begin{aligned} \hat x &= \frac{h-m}{\sqrt{v+\epsilon}} \\ z &\sim \mathcal N(\mu, \sigma^2)\end{aligned}",
    r"\underbrace{\mathbb E_{q}[-\ln p(y \mid z)]}_{\text{fit}} + \beta\,\mathrm{KL}(q \,\Vert\, r)",
    r"\boldsymbol\mu \odot \lVert W_{:j} \rVert^2 \quad \begin{cases} 0 & x<0 \\ 1 & \text{else}\end{cases}",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas_of_the_book_are_known_to_mathjax(mathjax, formula):
    known = latex.names_known((mathjax / "tex-mml-chtml.js").read_text(encoding="utf-8"))
    assert not list(latex.formula_problems(formula, known))


@pytest.mark.skipif(not any(map(shutil.which, latex.BROWSERS)), reason="no Chromium on this machine")
def test_mathjax_itself_says_what_is_wrong(mathjax):
    browser = next(filter(None, map(shutil.which, latex.BROWSERS)))
    formulas = [rf"\[{f}\]" for f in [*FORMULAS, r"\frac{a}", "a & b"]]
    found = latex.typeset_problems(formulas, mathjax / "tex-mml-chtml.js", browser)
    assert found == {4: r"Missing argument for \frac", 5: "Misplaced &"}


def test_library_reference_describes_each_object_once():
    described = [line for page in pages.library().values() for line in page.splitlines() if line.startswith(".. auto")]
    assert len(described) == len(set(described)) > 20


def test_the_line_below_an_equation_is_linked_once():
    line = "<small>Computed by `klnorm_lib.apply`; asserted by `tests/a/test_b.py::test_c[d]`.</small>"
    linked = source_links.link_line(line, "https://github.com/org/repo")
    assert "{py:obj}`klnorm_lib.apply`" in linked
    assert "[`tests/a/test_b.py::test_c[d]`](https://github.com/org/repo/blob/main/tests/a/test_b.py)" in linked
    assert source_links.link_line(linked, "https://github.com/org/repo") == linked
