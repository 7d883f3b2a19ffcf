"""The look at what was built finds each kind of fault, and nothing in a good book."""

import check
import latex
import pytest
from bs4 import BeautifulSoup
from nbformat import write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

MATHJAX = 'x={begin:"Begin",end:"End",frac:"Frac",left:"Left",right:"Right",alpha:"a",cases:["Array"],"\\\\Vert":["b"]}'
GOOD_PAGE = """<article><img src="a.png" alt="A line that rises."/><a href="https://else.where">a link</a>
<div class="math notranslate"><span class="eqno">(1)</span>\\[\\frac{\\alpha}{2}\\]</div><code>$$</code></article>"""


@pytest.fixture
def book(tmp_path):
    """A repository with a book that was built and has no faults: root, sources, pages."""
    src, html = tmp_path / "build/src", tmp_path / "build/book/html"
    for folder in (src / "notebooks", src / "book", html / "book", html / "_static/mathjax"):
        folder.mkdir(parents=True)
    (src / "_toc.yml").write_text(
        "root: book/index\nparts:\n- chapters:\n  - file: notebooks/01_a\n    sections: [{file: book/card}]\n"
    )
    (src / "_config.yml").write_text("logo: book/logo.svg")
    (src / "book/logo.svg").write_text("<svg/>")
    (src / "book/index.md").write_text("# Book\n\nText.\n\n$$\nx\n$$\n\nText.\n")
    (src / "book/card.md").write_text("# Card\n\n```python\nprice = '$$'\n```\n")
    save(src, new_code_cell("1", execution_count=1), new_markdown_cell("$$\nx\n$$ (eq-x)"), new_code_cell(""))
    (html / "book/index.html").write_text(GOOD_PAGE)
    (html / "_static/mathjax/tex-mml-chtml.js").write_text(MATHJAX)
    return tmp_path, src, html


def save(src, *cells):
    write(new_notebook(cells=list(cells)), src / "notebooks/01_a.ipynb")


@pytest.fixture(autouse=True)
def no_browser(monkeypatch):
    """The browser looks at equations in a test of its own."""
    monkeypatch.setattr(latex, "BROWSERS", ())


def error_output(root, src, html):
    output = new_output("error", ename="ValueError", evalue="no", traceback=[])
    save(src, new_code_cell("1", execution_count=1, outputs=[output]))


def unexecuted(root, src, html):
    save(src, new_code_cell("1"))


def orphan(root, src, html):
    (src / "book/lost.md").write_text("# Lost\n")


def unused_picture(root, src, html):
    (src / "book/unused.png").touch()


def missing_page(root, src, html):
    (src / "book/card.md").unlink()


def glued(root, src, html):
    (src / "book/index.md").write_text("# Book\n\nText\n$$\nx\n$$\n")


def glued_in_a_notebook(root, src, html):
    save(src, new_markdown_cell("Text $$x$$ text."))


def page(addition):
    body = GOOD_PAGE.replace("</article>", f"{addition}</article>")
    return lambda root, src, html: (html / "book/index.html").write_text(body)


def chapter(root, src, html):
    (html / "notebooks").mkdir()
    link = '<a href="https://colab.research.google.com/github/o/r/blob/main/notebooks/02_b.ipynb">Colab</a>'
    (html / "notebooks/01_a.html").write_text(GOOD_PAGE + link)


def whole_page(body):
    return lambda root, src, html: (html / "book/index.html").write_text(body)


def leftover(root, src, html):
    (root / "notebooks/.ipynb_checkpoints").mkdir(parents=True)


def foreign_font(root, src, html):
    (html / "_static/a.css").write_text("@font-face{src:url(https://fonts.host/a.woff2)}")


def no_mathjax(root, src, html):
    (html / "_static/mathjax/tex-mml-chtml.js").unlink()


FAULTS = {
    "ValueError: no": error_output,
    "was not executed": unexecuted,
    "lost: not in _toc.yml": orphan,
    "no page shows this picture": unused_picture,
    "there is no such file": missing_page,
    "index.md, line 4: `$$` glued": glued,
    "01_a.ipynb, cell 0, line 1: `$$` glued": glued_in_a_notebook,
    "the figure b.png has no alt text": whole_page('<article><img src="b.png"/></article>'),
    "the figure c.png has no alt text": whole_page('<article><img src="c.png" alt="../c.png"/></article>'),
    "loads https://cdn.host/a.js": page('<script src="https://cdn.host/a.js"></script>'),
    "loads //cdn.host/a.css": page('<link rel="stylesheet" href="//cdn.host/a.css"/>'),
    "loads https://host/a.png": page('<img alt="A thing." src="https://host/a.png"/>'),
    "loads https://fonts.host/b.css": page("<style>@import 'https://fonts.host/b.css';</style>"),
    "loads https://fonts.host/a.woff2": foreign_font,
    "printed as text": page("<p>We see $$x$$ here.</p>"),
    "unknown command \\frock": page(r'<span class="math notranslate">\(\frock{1}\)</span>'),
    "unbalanced braces": page(r'<span class="math notranslate">\(\frac{1}{2\)</span>'),
    "no Colab button that opens notebooks/01_a.ipynb": chapter,
    "left over from a build": leftover,
    "no equation is typeset": no_mathjax,
}


def test_a_good_book_has_no_problems(book):
    assert check.problems(*book) == []


@pytest.mark.parametrize("message", FAULTS)
def test_each_fault_is_found_and_named(book, message):
    FAULTS[message](*book)
    assert [p for p in check.problems(*book) if message in p]


@pytest.mark.parametrize(
    "text",
    [
        "Text\n$$\nx\n$$\n\nText",
        "Text\n\n$$\nx\n$$\nText",
        "Text $$x$$ text",
        "$$\nx\n$$ text",
        "$$x$$ text",
        "$$\nx\n",
        "> Text\n> $$\n> x\n> $$",
    ],
)
def test_glued_equation(text):
    assert list(check.glued_maths("page", text))


@pytest.mark.parametrize(
    "text",
    [
        "Text\n\n$$\nx\n$$\n\nText",
        "$$ x $$ (eq-x)\n\nText",
        "$$\nx\n$$ (eq-x)\n\nText",
        "```\nText $$\n```\n\nText",
        "Two `$$` signs.",
        "> Text\n>\n> $$\n> x\n> $$\n>\n> Text",
        "$$x\n+ y$$\n\nText",
    ],
)
def test_free_equation(text):
    assert not list(check.glued_maths("page", text))


KNOWN = latex.names_known(MATHJAX)


GOOD = [r"\frac{\alpha}{2}", r"\left( x \right)", r"\{x\}", r"\begin{cases}a\end{cases}", r"\Vert"]
BAD = [r"\nothing", r"\frac{1", r"1}{", r"\left( x", r"\begin{cases}a", r"\begin{none}a\end{none}", "x^2^3", "x_{1}_2"]


@pytest.mark.parametrize("formula", GOOD)
def test_good_formula(formula):
    assert not list(latex.formula_problems(formula, KNOWN))


@pytest.mark.parametrize("formula", BAD)
def test_bad_formula(formula):
    assert list(latex.formula_problems(formula, KNOWN))


def test_a_page_may_link_anywhere():
    text = '<a href="https://host/page">x</a><link rel="canonical" href="https://host/"/>'
    assert not list(check.page_problems("page", BeautifulSoup(text, "html.parser")))
