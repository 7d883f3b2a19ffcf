"""Typed numbers in a notebook's prose, alternative texts, code and outputs are found; what its code computes is not."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from typed_in_notebooks import problems


def html(body):
    return new_output("display_data", data={"text/html": f"<table><tr><td>{body}</td></tr></table>"})


def printed(text):
    return new_output("stream", name="stdout", text=text)


def code(source, *outputs, alt=""):
    metadata = {"mystnb": {"image": {"alt": alt}}} if alt else {}
    return new_code_cell(source, outputs=list(outputs), metadata=metadata)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (new_markdown_cell("It reaches 0.712."), "0.712"),
        (new_markdown_cell("| a | 71 % |"), "71 %"),
        (code("draw()", alt="The bar ends at 0.712, above all others."), "alternative text"),
        (code('print("the accuracy is 0.71")'), "code, line 1: the number 0.71"),
        (code('print(f"{name} won by 3 % here")'), "3 %"),
        (code('ax.set_title("plain reaches 71.2 here")'), "71.2"),
        (code('pages.say(f"It gains three points over {name}.")'), "three points"),
        (code('"""The accuracy is 0.71 here."""'), "0.71"),
        (code("scores = [0.712, 0.698, 0.731]"), "typed in as data"),
        (code('scores = {"plain": 0.712, "klnorm": 0.731}'), "typed in as data"),
        (code('pd.DataFrame({"plain": [71.2, 69.8]})'), "typed in as data"),
        (code("best = 0.712\nprint(best)", printed("0.712\n")), "output: the number 0.712"),
        (code("best = 0.712\nframe(best)", html("0.712")), "output: the number 0.712"),
        (code("ax.bar([0, 1], [0.712, 0.698])"), "typed in as data"),
    ],
)
def test_typed_number_is_found(cell, message):
    found = list(problems(new_notebook(cells=[cell])))
    assert any(message in problem and problem.startswith("cell 0: ") for problem in found), found


@pytest.mark.parametrize(
    "cell",
    [
        code('print(f"accuracy {x:.3f}, {100 * x:.1f} %")', printed("accuracy 0.712, 71.2 %\n")),
        code('print("the accuracy is {:.3f} here".format(x))'),
        code("frame(records)", html("0.712")),
        code("rate, steps = 1e-3, 200\nbetas = (0.0, 0.1, 0.25)"),
        code('ax.legend(loc="upper left", bbox_to_anchor=(1.02, 0.985))\nlatent.set_xlim(-1.05, 1.25)'),
        code('print("95 % interval of the mean")\nquantile(0.975)'),
        code('%pip install "x>=1.25"\nname = "eq-0.5"'),
        new_markdown_cell("The cell below prints it."),
    ],
)
def test_what_is_computed_passes(cell):
    assert not list(problems(new_notebook(cells=[cell])))


def test_a_number_shown_in_another_cell_is_found():
    cells = [code("best = 0.712"), code("best", html("0.712"))]
    assert [p for p in problems(new_notebook(cells=cells)) if p.startswith("cell 1: output: the number 0.712")]


def test_declared_constants_count_for_the_whole_notebook():
    declared = new_markdown_cell("<!-- constants: 0.01 (a sigma that the solution sets); 0.577 (of Euler) -->")
    used = [code('print("at sigma = 0.01 we get", y)'), code("gamma = 0.577\nprint(gamma)", printed("0.577"))]
    assert not list(problems(new_notebook(cells=[declared, *used])))
    idle = list(problems(new_notebook(cells=[declared, used[0]])))
    assert len(idle) == 1
    assert "0.577" in idle[0]
    assert "stands nowhere" in idle[0]
