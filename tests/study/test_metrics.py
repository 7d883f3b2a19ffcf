"""Metrics against hand-computed values, and out-of-domain labels against the sum of probabilities."""

import math

import evaluate
import numpy as np
import pytest

from klnorm_lib.study import evaluation, metrics


@pytest.mark.parametrize(
    ("name", "predictions", "references", "expected"),
    [
        ("accuracy", [0, 1, 1, 0], [0, 1, 0, 0], 0.75),
        ("f1", [0, 1, 1, 0], [0, 1, 0, 0], 2 / 3),
        ("f1", [0, 1, 2, 2], [0, 1, 2, 1], (1 + 2 / 3 + 2 / 3) / 3),
        ("macro_f1", [0, 1, 1, 0], [0, 1, 0, 0], (0.8 + 2 / 3) / 2),
        ("matthews", [0, 1, 1, 0], [0, 1, 0, 0], 2 / math.sqrt(2 * 1 * 3 * 2)),
        ("matthews", [1, 1], [0, 1], 0.0),
        ("pearson", [1.0, 2.0, 4.0], [2.0, 4.0, 8.0], 1.0),
        ("spearman", [1.0, 2.0, 9.0], [3.0, 2.0, 1.0], -1.0),
        ("pearson", [1.0, 1.0], [2.0, 3.0], None),
    ],
)
def test_values(name, predictions, references, expected):
    assert isinstance(metrics.load(name), evaluate.Metric)
    assert metrics.compute([name], predictions, references)[name] == pytest.approx(expected)


def test_unknown_metric_is_named():
    with pytest.raises(ValueError, match="accuracy, f1"):
        metrics.load("bleu")


def test_metrics_of_every_task_exist():
    from klnorm_lib import tasks

    for task in tasks.names():
        for name in tasks.spec(task).metrics:
            assert metrics.load(name).compute(predictions=[0, 1, 1], references=[0, 1, 0])[name] <= 1


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    labels = np.array([0, 1, 0, 1])
    expected = (abs(1 - 1.8) + abs(1 - 0.6) + abs(1 - 0.7)) / 4
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("bins", "edge", "below", "above"), [(15, 0.6, 0.55, 0.65), (5, 0.6, 0.5, 0.7), (10, 0.8, 0.75, 0.85)]
)
def test_a_confidence_on_the_edge_of_two_bins_belongs_to_the_lower_one(bins, edge, below, above):
    def error(*confidences):  # the first row is wrong, the other right
        rows = np.array([[c, 1 - c] for c in confidences])
        return metrics.expected_calibration_error(rows, np.array([1, 0]), bins)

    assert error(edge, below) == pytest.approx(abs(1 - edge - below) / 2)  # one bin: their errors cancel
    assert error(edge, above) == pytest.approx((edge + 1 - above) / 2)  # two bins: they do not


def test_a_confidence_of_one_is_in_the_last_bin():
    rows = np.array([[1.0, 0.0], [0.95, 0.05]])
    assert metrics.expected_calibration_error(rows, np.array([1, 0])) == pytest.approx(abs(1 - 1.95) / 2)


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_finite():
    certain = np.array([[1.0, 0.0]])
    assert metrics.expected_calibration_error(certain, np.array([0])) == 0
    assert metrics.negative_log_likelihood(certain, np.array([0])) == pytest.approx(0)
    assert metrics.negative_log_likelihood(certain, np.array([1])) == pytest.approx(-math.log(1e-12))


def test_merged_classes_sum_before_the_choice():
    probabilities = np.array([[0.4, 0.35, 0.25]])
    assert probabilities.argmax() == 0
    merged = evaluation.merge(probabilities, [(0,), (1, 2)])
    np.testing.assert_allclose(merged, [[0.4, 0.6]])
    assert merged.argmax() == 1


def test_labels_without_a_counterpart_are_left_out():
    merged = evaluation.merge(np.array([[0.5, 0.3, 0.2]]), [(1,), (2,)])
    np.testing.assert_allclose(merged, [[0.6, 0.4]])
