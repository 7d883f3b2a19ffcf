"""No typed-in results and no addresses in place of citations, in any page."""

import nbformat
import pytest
import typed_in_notebooks
import typed_numbers

from klnorm_lib.encoders.sources import HERE
from klnorm_lib.pages import card, evidence
from tests.book import NOTEBOOKS, PROSE, ROOT, notebook_rules

CARDS = sorted(HERE.glob("*/README.md"))
PARTS = sorted((ROOT / "klnorm_lib/pages").glob("*.md"))  # the prose of pages that the library fills
PAGES = {str(p.relative_to(ROOT)): p for p in [*PROSE, ROOT / "README.md", *PARTS, *CARDS]}
CHAPTERS = {p.name: p for p in NOTEBOOKS}


def filled(name):
    """The parts of a page that are made from records: tests/report compares them with what the records give now."""
    if name.startswith("book/methods/"):
        return ("evidence",)
    return tuple(card.PARTS) if PAGES[name] in CARDS else ()


@pytest.mark.parametrize("name", PAGES)
def test_no_typed_numbers(name):
    assert not list(typed_numbers.page_problems(PAGES[name].read_text(encoding="utf-8"), filled(name)))


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_typed_numbers_in_notebooks(name):
    assert not list(typed_in_notebooks.problems(nbformat.read(CHAPTERS[name], as_version=4)))


@pytest.mark.parametrize("name", [*(n for n in PAGES if n.startswith("book/")), *CHAPTERS])
def test_papers_are_cited_and_not_linked(name):
    text = (PAGES | CHAPTERS)[name].read_text(encoding="utf-8")
    assert not notebook_rules.PAPER_ADDRESS.findall(text)


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        ("The accuracy is 0.91 here.", "0.91"),
        ("It won by 3 % on average.", "3 %"),
        ("It won by 3.2% on average.", "3.2%"),
        ("It won by 3\u00a0% on average.", "3 %"),
        ("Three of them gained 12 percent.", "12 percent"),
        ("Three of them gained 12 per cent.", "12 per cent"),
        ("Three of them gained twelve per cent.", "twelve per cent"),
        ("It is five percentage points better.", "five percentage points"),
        ("It is two and a half points better.", "two and a half points"),
        ("It wins by three points.", "three points"),
        ("It wins by 3 points.", "3 points"),
        ("A gain of half a point.", "half a point"),
        ("About ½ of the gain.", "½"),
        ("We chose 1e-3 as the rate.", "1e-3"),
        ("> A quote with .5 in it.", ".5"),
        ("| arm | score |\n|---|---|\n| a | 71.2 |", "71.2"),
        ("<table><tr><td>0.71</td></tr></table>", "0.71"),
        ("```\ncode\n```\n\nThen 0.7 after the code.", "0.7"),
        ("```text\naccuracy 0.712\n```", "0.712"),
        ("```\naccuracy 0.712\n```", "0.712"),
        ("```{note}\nIt reaches 0.712.\n```", "0.712"),
        (":::{tip}\nIt reaches 0.712.\n:::", "0.712"),
        ("```{figure} a.png\n:width: 50%\n:alt: Two bars, 0.7 and 0.8 high.\nIt reaches them.\n```", "0.7"),
        ("![The bar ends at 0.712](a.png)", "0.712"),
        ('<img src="a.png" alt="The bar ends at 0.712">', "0.712"),
        ("In `code` and then 0.7 outside.", "0.7"),
        ("The accuracy is `0.712`.", "0.712"),
        ("The accuracy is $0.712$.", "0.712"),
        ("The accuracy is $71\\%$.", "71 %"),
        ("For $x$ we get 0.7 and $y$.", "0.7"),
        ("<!-- other -->0.7<!-- /other -->", "0.7"),
    ],
)
def test_typed_number_is_found(typed, number):
    found = list(typed_numbers.typed_numbers(typed, ["evidence"]))
    assert any(f"the number {number} is typed in" in problem for problem in found), found


@pytest.mark.parametrize(
    "fine",
    [
        "Chapter 26, 200 examples, 1,000 rows, 2 cores, seed 0.",
        "Set `beta=1e-3`, $p = 0.1$, and $$\n0.5\n$$ (eq-half)",
        "```python\nx = 0.1\n```",
        "```bash\nklnorm run --learning-rate 0.001\n```",
        "{cite:p}`kumar2023klnorm`, {eq}`eq-0.5`, [a page](https://host/v1.2/page).",
        "It gains {record}`text: klnorm_b minus plain on trec at 200`.",
        "Python 3.11, Apache-2.0, CC BY 4.0, CC BY-SA 3.0.",
        '<img width="50%">',
        "<!-- constants: 0.5 (a fair coin); five points (an exercise supposes them) -->\n0.5, and by five points.",
        "The bars are 95 % intervals, the lines 95 % bootstrap intervals.",
        "| `p` | `0.1` | one probability for every site |",
        "A few points more, or a point or two; the two points on the line, all 20 points, the starting point.",
        "---\nkey: 0.1\n---\n\nText.",
        "<!-- evidence -->\n| a | 0.71 |\n<!-- /evidence -->",
    ],
)
def test_what_is_no_result_passes(fine):
    assert not list(typed_numbers.page_problems(fine, ["evidence"]))


def test_problem_names_its_line():
    text = "---\nkey: 0.1\n---\n\n```python\nx = 0.5\n```\n\nAnd then 0.7.\n"
    (problem,) = typed_numbers.typed_numbers(text)
    assert problem.startswith("line 9: the number 0.7 ")


def test_declared_constant_needs_a_reason():
    with pytest.raises(ValueError, match="reason"):
        list(typed_numbers.typed_numbers("<!-- constants: 0.5 -->\n0.5"))


def test_declared_constant_covers_only_itself():
    assert list(typed_numbers.typed_numbers("<!-- constants: 0.5 (a coin) -->\n0.5 and 0.6"))


def test_declared_constant_must_be_needed():
    (problem,) = typed_numbers.page_problems("<!-- constants: 0.5 (a coin) -->\nNo coin.")
    assert "stands nowhere" in problem


def test_the_level_is_known_of_intervals_only():
    assert list(typed_numbers.typed_numbers("It is right in 95 % of all rows."))


def test_a_changed_digit_in_a_filled_part_is_found():
    text = (ROOT / "book/methods/klnorm.md").read_text(encoding="utf-8")
    start = text.index("<!-- evidence -->")
    digit = next(i for i in range(start, len(text)) if text[i - 2 : i] in ("+0", "-0") and text[i] == ".") + 1
    forged = text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :]
    assert not list(typed_numbers.typed_numbers(forged, ["evidence"]))  # the part is not read as prose
    assert evidence.refresh(forged, "klnorm") == text  # but made anew, and compared
