"""No typed-in results and no addresses in place of citations, in any page."""

import nbformat
import pytest

from tests.book import NOTEBOOKS, PROSE, ROOT, law, prose

PAGES = {str(p.relative_to(ROOT)): p for p in [*PROSE, *NOTEBOOKS, ROOT / "README.md"]}


def text_of(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")


@pytest.mark.parametrize("page", PAGES)
def test_no_typed_numbers(page):
    assert not list(prose.typed_numbers(text_of(PAGES[page])))


@pytest.mark.parametrize("page", [name for name in PAGES if name != "README.md"])
def test_papers_are_cited_and_not_linked(page):
    assert not law.PAPER_ADDRESS.findall(text_of(PAGES[page]))


@pytest.mark.parametrize(
    "typed",
    [
        "The accuracy is 0.91 here.",
        "It won by 3 % on average.",
        "It won by 3.2% on average.",
        "Three of them gained 12 percent.",
        "We chose 1e-3 as the rate.",
        "> A quote with .5 in it.",
        "| arm | score |\n|---|---|\n| a | 71.2 |",
        "```\ncode\n```\n\nThen 0.7 after the code.",
        "In `code` and then 0.7 outside.",
        "For $x$ we get 0.7 and $y$.",
    ],
)
def test_typed_number_is_found(typed):
    assert list(prose.typed_numbers(typed))


@pytest.mark.parametrize(
    "fine",
    [
        "Chapter 26, 200 examples, 1,000 rows, 2 cores, seed 0.",
        "Set `beta=1e-3`, $p = 0.1$, and $$\n0.5\n$$ (eq-half)",
        "```python\nx = 0.1\n```",
        "```{note}\nPrinted by code: 0.2\n```",
        "{cite:p}`kumar2023klnorm`, {eq}`eq-0.5`, [a page](https://host/v1.2/page).",
        "Python 3.11, Apache-2.0, CC BY 4.0.",
        '<img width="50%">',
        "<!-- constants: 95 % (the level of every interval); 0.5 (a fair coin) -->\nThe 95% interval, and 0.5.",
        "---\nkey: 0.1\n---\n\nText.",
    ],
)
def test_what_is_no_result_passes(fine):
    assert not list(prose.typed_numbers(fine))


def test_declared_constant_needs_a_reason():
    with pytest.raises(ValueError, match="reason"):
        list(prose.typed_numbers("<!-- constants: 0.5 -->\n0.5"))


def test_declared_constant_covers_only_itself():
    assert list(prose.typed_numbers("<!-- constants: 0.5 (a coin) -->\n0.5 and 0.6"))
