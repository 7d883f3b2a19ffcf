"""The page on architectures: the record as it is packaged, and tables made from answers."""

import re

import pytest

from klnorm_lib.pages import architectures
from tests.matrix import checks
from tests.matrix.architectures import language_models, names


@pytest.fixture(scope="module")
def values():
    return architectures.read()


def test_the_record_is_of_every_classifier_and_has_no_fault(values):
    assert sorted([*values["architectures"], *values["not_built"]]) == sorted([*names(), *language_models()])
    assert len(architectures.classifiers(values["not_built"])) < 10
    faults = {(n, a) for n, answers in values["architectures"].items() for a in answers.values() if "FAULT" in a}
    assert not faults


def test_the_columns_are_the_checks():
    assert list(architectures.COLUMNS) == list(checks.CHECKS)


def test_guided_dropout_was_measured_on_sixty_architectures_and_more(values):
    found = architectures.counts(values).set_index("check")
    assert found.loc["guided", "ok"] >= 60
    assert (found.sum(axis=1) == len(architectures.classifiers(values["architectures"]))).all()


def made(**answers):
    named = dict.fromkeys(architectures.COLUMNS, "ok") | answers
    record = {"schema_version": 1, "created": "2026-01-01T00:00:00+00:00", "versions": {"torch": "2"}}
    return record | {"architectures": {"text/bert": named}, "not_built": {"text/a": "a package is missing"}}


def test_a_row_has_the_sign_of_each_answer():
    values = made(guided="refused: no <site> is known", padding="depends: logits move by 0.1", fisher="FAULT: off")
    architectures.check(values)
    assert list(architectures.table(values, "text").iloc[0]) == ["`bert`", "✓", "✓", "✓", "r", "✗", "✓", "≠"]
    assert architectures.reasons(values, "text") == (
        "- `bert`: G refused: no \\<site\\> is known; F FAULT: off; N depends: logits move by 0.1\n"
    )


@pytest.mark.parametrize(
    ("answers", "said"),
    [({"pooled": "fine"}, "fine"), ({"pooled": "refused"}, "refused"), ({"speed": "ok"}, "speed instead of")],
)
def test_an_answer_of_another_kind_is_an_error(answers, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        architectures.check(made(**answers))


def test_what_was_built_cannot_be_among_what_was_not():
    values = made()
    values["not_built"]["text/bert"] = "too large"
    with pytest.raises(ValueError, match="text/bert was built"):
        architectures.check(values)


def test_the_page_holds_every_architecture(values):
    page = architectures.page()
    assert "<!--" not in page
    for name in [*values["architectures"], *values["not_built"]]:
        assert f"`{name.split('/')[1]}`" in page or f"`{name}`" in page
