"""The arguments of a method are described once, and a field with a text is a dataclass field like any other."""

import dataclasses
import inspect

import pytest

from klnorm_lib import GuidedDropout, KLNorm, Method, methods
from klnorm_lib.methods.arguments import argument, arguments

CLASSES = list(methods.REGISTRY.own.values())


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.name)
def test_every_argument_has_a_text_that_the_docstring_shows(cls):
    shown = " ".join(inspect.getdoc(cls).split())
    for each in arguments(cls):
        assert each.text, f"say what {cls.__name__}.{each.name} is: {each.name} = argument(DEFAULT, TEXT)"
        assert f":param {each.name}: {each.text} (default ``{each.default!r}``)" in shown
    assert shown.count(":param ") == len(arguments(cls))


@dataclasses.dataclass(frozen=True)
class Described(Method):
    """A method for these tests."""

    rate: float = argument(0.1, "a share, in [0, 1]")
    shape: str = "flat"

    name = "described"


@dataclasses.dataclass(frozen=True)
class Inherited(Described):
    """One that inherits an argument."""

    more: int = argument(2, "a number of things")


@dataclasses.dataclass(frozen=True)
class Undescribed(Method):
    rate: float = argument(0.1, "a share")


def test_a_described_field_is_an_ordinary_one():
    assert Described(0.2) == Described(rate=0.2) != Described()
    assert dataclasses.asdict(Described()) == {"rate": 0.1, "shape": "flat"}
    assert repr(Described()) == "Described(rate=0.1, shape='flat')"
    assert hash(Described()) == hash(Described(0.1))
    assert Described.rate == 0.1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Described().rate = 0.3


def test_docstrings_list_what_is_described():
    assert inspect.getdoc(Described) == (
        "A method for these tests.\n\n:param rate: a share, in [0, 1] (default ``0.1``)"
    )
    assert inspect.getdoc(Inherited).splitlines()[2:] == [
        ":param rate: a share, in [0, 1] (default ``0.1``)",
        ":param more: a number of things (default ``2``)",
    ]
    assert [each.name for each in arguments(Inherited)] == ["rate", "shape", "more"]
    assert ":param" not in (Undescribed.__doc__ or "")


@pytest.mark.parametrize(
    "method", [lambda: KLNorm(placement="internal", train_base="no"), lambda: GuidedDropout(add_missing="no")]
)
def test_a_truth_value_is_no_word(method):
    with pytest.raises((TypeError, ValueError), match="must be True or False, got 'no'"):
        method()
