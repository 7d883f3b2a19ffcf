"""What is counted by formula is what apply adds, for every method and at widths that no formula was fitted to."""

import dataclasses

import pytest

from klnorm_lib import Method, apply
from klnorm_lib.methods import build
from klnorm_lib.methods.counting import added_parameters, encoder_parameters
from tests import zoo
from tests.methods.cases import ROWS, ready

# What the rows of the common tests leave out of the formulas.
MORE = [
    *(("klnorm", {"form": form, "heads": heads}) for form in "AC" for heads in ("low_rank", "diagonal", "full")),
    ("klnorm", {"rank": 3}),
    ("klnorm", {"form": "C", "prior": "learned_diagonal", "heads": "diagonal"}),
    ("mlp_head", {"rank": 5}),
    ("vib", {"bottleneck": 7}),
]
SETTINGS = [(name, fields) for name, row in ROWS.items() for fields in row.settings.values()] + MORE


def counted(method, width, outputs):
    """The number, or what the method says of it."""
    try:
        return added_parameters(method, width, outputs)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize(("name", "fields"), SETTINGS, ids=str)
def test_counted_is_added_or_it_says_where_to_ask(name, fields):
    for width, outputs in ((40, 2), (56, 5)):
        model = zoo.build("bert", hidden_size=width, num_labels=outputs, num_hidden_layers=1)
        method = build(name, **fields)
        report = apply(model, ready(method, model))
        found = counted(method, width, outputs)
        assert found == report.added_parameters or "ask apply(...).added_parameters" in str(found)


def test_no_method_adds_nothing():
    assert added_parameters(None, 40) == 0


def test_matrices_of_an_encoder_are_twelve_squares_a_layer():
    for width, layers in ((32, 2), (48, 3)):
        model = zoo.build("bert", hidden_size=width, num_hidden_layers=layers, intermediate_size=4 * width)
        matrices = [p for n, p in model.bert.encoder.named_parameters() if p.ndim == 2]
        assert encoder_parameters(width, layers) == sum(p.numel() for p in matrices)


def test_what_has_no_formula_is_refused():
    with pytest.raises(ValueError, match="inside the encoder"):
        added_parameters(build("klnorm", placement="internal"), 32)

    @dataclasses.dataclass(frozen=True)
    class Other(Method):
        name = "other"

    with pytest.raises(TypeError, match="Other"):
        added_parameters(Other(), 32)
