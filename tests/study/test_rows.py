"""Row scores: their mean is the metric, the jackknife's shortcuts equal leaving rows out one by one."""

import numpy as np
import pytest

from klnorm_lib.study import metrics, rows

DRAW = np.random.default_rng(0)
LABELS = DRAW.integers(0, 3, 60)
GUESSES = np.where(DRAW.random(60) < 0.7, LABELS, DRAW.integers(0, 3, 60))
VALUES = LABELS + DRAW.normal(size=60)


@pytest.mark.parametrize("metric", ["accuracy", "matthews", "macro_f1", "pearson", "spearman"])
def test_the_mean_of_the_row_scores_is_the_metric(metric):
    guesses = VALUES if metric in ("pearson", "spearman") else GUESSES
    values = rows.scores(metric, guesses, LABELS)
    whole = metrics.compute([metric], guesses.tolist(), LABELS.tolist())[metric]
    assert values.shape == (60,)
    assert values.mean() == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize(("metric", "guesses"), [("matthews", GUESSES), ("pearson", VALUES)])
def test_the_shortcuts_equal_leaving_rows_out_one_by_one(metric, guesses):
    quick = rows._WITHOUT[metric](guesses.astype(float), LABELS.astype(float))
    np.testing.assert_allclose(quick, rows._one_by_one(metric)(guesses, LABELS), atol=1e-12)


def test_accuracy_is_a_bit_a_row():
    np.testing.assert_array_equal(rows.scores("accuracy", GUESSES, LABELS), GUESSES == LABELS)


def test_the_variance_of_pseudo_values_is_the_sampling_variance():
    """For the correlation of a normal pair: its standard error is (1 - r^2) / sqrt(n), to first order."""
    x = DRAW.normal(size=4000)
    y = 0.6 * x + 0.8 * DRAW.normal(size=4000)
    values = rows.scores("pearson", x, y)
    assert values.std(ddof=1) / np.sqrt(4000) == pytest.approx((1 - 0.6**2) / np.sqrt(4000), rel=0.1)


def test_an_undefined_metric_has_no_row_scores():
    assert rows.scores("pearson", np.zeros(10), np.arange(10)) is None


@pytest.mark.parametrize("values", [np.array([0.0, 1.0, 1.0] * 7), DRAW.normal(size=21)])
def test_row_scores_survive_being_written(values):
    entry = rows.encode("accuracy", values)
    np.testing.assert_allclose(rows.decode(entry), values, rtol=1e-3)
    assert len(entry["values"]) < 70


def test_row_scores_of_another_length_are_refused():
    with pytest.raises(ValueError, match="should hold 99 rows"):
        rows.decode({**rows.encode("accuracy", np.ones(8)), "n": 99})
