"""The table of cases names every method that is registered, and its rows are what they say."""

import pytest

from klnorm_lib.methods import REGISTRY
from klnorm_lib.methods.contract import PROPERTIES
from tests.methods.cases import CASES, HEARS, READS, ROWS
from tests.methods.loops import small


def test_every_registered_method_has_a_row_and_every_row_a_method():
    missing, extra = sorted(set(REGISTRY.own) - set(ROWS)), sorted(set(ROWS) - set(REGISTRY.own))
    assert not missing, f"no row in tests/methods/cases.py for {', '.join(missing)}"
    assert not extra, f"tests/methods/cases.py has rows for {', '.join(extra)}, which klnorm_lib.methods does not list"


@pytest.mark.parametrize("name", ROWS)
def test_a_row_runs_on_texts_and_on_sounds(name):
    assert {case.model for case in CASES if case.name == name} == {READS, HEARS}
    assert set(ROWS[name].main) <= set(ROWS[name].settings)


def test_every_property_is_stated_by_some_and_not_by_others():
    """A property that all or none stated would be tested from one side only."""
    stated = [case.method(small(case.model)).properties for case in CASES]
    for each in PROPERTIES:
        assert {each in properties for properties in stated} == {True, False}, each
    assert set().union(*stated) <= set(PROPERTIES)
