"""What is read from the source of the methods is what their classes have and refuse."""

import dataclasses
import math
import re

import pytest

from klnorm_lib import methods
from klnorm_lib.study import stated

VALUES = (-1, -0.5, 0, 0.5, 1, 1.5, 2, 1e9, math.nan, "text", None)
OWN = methods.REGISTRY.own


def refuses(cls, field, value):
    try:
        cls(**{field: value})
    except (ValueError, TypeError):
        return True
    return False


def test_the_names_are_those_of_the_registry():
    assert set(stated.own()) == set(OWN)
    assert set(stated.methods()) == set(methods.names())
    assert set(stated.names()) - set(stated.methods()) == {"frozen", "setfit"}


@pytest.mark.parametrize("name", OWN)
def test_the_arguments_are_those_of_the_class(name):
    assert list(stated.own()[name]) == [field.name for field in dataclasses.fields(OWN[name])]


@pytest.mark.parametrize("name", OWN)
def test_what_is_refused_here_the_class_refuses(name):
    for field, argument in stated.own()[name].items():
        refused = [value for value in VALUES if argument.complaint(value) is not None]
        assert [value for value in refused if not refuses(OWN[name], field, value)] == []


@pytest.mark.parametrize("name", OWN)
def test_every_choice_of_the_class_is_stated(name):
    for field, argument in stated.own()[name].items():
        if argument.annotation != "str":
            continue
        with pytest.raises(ValueError, match="choose one of") as error:
            OWN[name](**{field: "no such choice"})
        choices = re.search(r"choose one of (.*)", str(error.value))[1].split(", ")
        assert [choice for choice in choices if argument.complaint(choice) is not None] == []
        assert argument.complaint("no such choice") is not None


def test_methods_of_other_packages_are_left_to_their_class(monkeypatch):
    class Point:
        name = "theirs"

    monkeypatch.setattr(stated.metadata, "entry_points", lambda group: [Point])
    stated.check("theirs", {"anything": 1})
    stated.check("theirs+klnorm", {"theirs.anything": 1, "klnorm.beta": 0.1})
    with pytest.raises(ValueError, match="no hyperparameter anything"):
        stated.check("theirs+klnorm", {"klnorm.anything": 1})
