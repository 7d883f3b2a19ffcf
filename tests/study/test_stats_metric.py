"""A number of a record by its name, sets out of domain with a slash in their names among them."""

from types import SimpleNamespace

import pytest

from klnorm_lib.study.stats import larger_is_better, metric, value

BOOKS = "multidomain_sentiment/books"
RECORD = SimpleNamespace(
    task={"primary_metric": "accuracy"},
    test={"accuracy": 0.8, "nll": 0.5},
    calibration={"test": {"ece": 0.1}, "ood": {"off": {"ece": 0.3}, BOOKS: {"ece": 0.4}}},
    gap={"accuracy": 0.2, "nll": -0.1},
    ood={"off": {"accuracy": 0.6, "nll": 0.7}, BOOKS: {"accuracy": 0.5, "nll": 0.9}},
    row_scores={f"ood/{BOOKS}": {"metric": "accuracy", "n": 3}},
)


@pytest.mark.parametrize(
    ("name", "expected", "full"),
    [
        (None, 0.8, "accuracy"),
        ("ece", 0.1, "ece"),
        ("gap", 0.2, "gap/accuracy"),
        ("gap/nll", -0.1, "gap/nll"),
        ("ood/off", 0.6, "ood/off/accuracy"),
        ("ood/off/ece", 0.3, "ood/off/ece"),
        (f"ood/{BOOKS}", 0.5, f"ood/{BOOKS}/accuracy"),
        (f"ood/{BOOKS}/nll", 0.9, f"ood/{BOOKS}/nll"),
        (f"ood/{BOOKS}/ece", 0.4, f"ood/{BOOKS}/ece"),
        ("ood/absent", None, "ood/absent/accuracy"),
        ("ood/absent/nll", None, "ood/absent/nll"),
    ],
)
def test_a_number_by_its_name(name, expected, full):
    assert value(RECORD, name) == expected
    assert metric.full_name(RECORD, name) == full
    if expected is not None:
        assert value(RECORD, full) == expected


def test_row_scores_of_a_set_with_a_slash_in_its_name():
    assert metric.rows(RECORD, f"ood/{BOOKS}")["n"] == 3
    assert metric.rows(RECORD, f"ood/{BOOKS}/accuracy")["n"] == 3
    assert metric.rows(RECORD, f"ood/{BOOKS}/nll") is None
    assert metric.rows(RECORD, "ood/off") is None


def test_direction():
    assert larger_is_better("accuracy")
    assert larger_is_better(f"ood/{BOOKS}/accuracy")
    assert not any(map(larger_is_better, ("ece", "nll", "gap", "gap/accuracy", f"ood/{BOOKS}/ece")))


def test_a_name_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="unknown metric 'test/accuracy'"):
        value(RECORD, "test/accuracy")
