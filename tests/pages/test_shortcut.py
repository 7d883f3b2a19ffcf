"""The shortcut gap of models whose gap follows from how they were made."""

from types import SimpleNamespace

import numpy as np
import pytest

from klnorm_lib import tasks
from klnorm_lib.pages import shortcut
from klnorm_lib.tasks.builtin import sentiment

TASK = "biased_sentiment"


@pytest.fixture(scope="module")
def sets():
    data = tasks.load(TASK, 100)
    return {name: data[split] for name, split in shortcut.SPLITS.items()}


def scores(sets, answer):
    """Rate to accuracy of a model that answers from the cue and the label of a row."""
    found = {}
    for name, rows in sets.items():
        cue = np.array([int(any(site in text for site in sentiment.SITES[1])) for text in rows["text"]])
        label = np.array(rows["label"])
        found[shortcut.rates(TASK)[name]] = float((answer(cue, label) == label).mean())
    return found


def test_a_model_that_reads_only_the_cue(sets):
    found = scores(sets, lambda cue, label: cue)
    assert found == {0.9: 0.9, 0.5: 0.5, 0.1: 0.1}
    assert shortcut.line(found) == pytest.approx((1.0, 0.0))
    assert shortcut.gap(found) == pytest.approx(1.0)


def test_models_that_do_not_read_it_at_all_or_go_against_it(sets):
    assert shortcut.gap(scores(sets, lambda cue, label: label)) == pytest.approx(0.0, abs=1e-9)
    assert shortcut.gap(scores(sets, lambda cue, label: 0 * label)) == pytest.approx(0.0, abs=1e-9)
    assert shortcut.gap(scores(sets, lambda cue, label: 1 - cue)) == pytest.approx(-1.0)


def test_a_model_that_reads_it_for_one_label_only(sets):
    found = scores(sets, lambda cue, label: np.where(label == 1, cue, label))
    assert shortcut.line(found) == pytest.approx((1.0, 0.5))


def test_one_rate_makes_no_line():
    with pytest.raises(ValueError, match="two rates or more, got 1"):
        shortcut.line({0.9: 0.8})


def record(stage="final", status="finished", **ood):
    return SimpleNamespace(
        status=status,
        task={"name": TASK},
        encoder={"name": "klnorm-nano"},
        study={"arm": "plain", "label": "plain", "stage": stage},
        run={"split_seed": 1, "seed": 2},
        test={"accuracy": 0.9},
        ood={name: {"accuracy": score} for name, score in ood.items()},
    )


def test_frame_keeps_final_runs_with_all_three_tests():
    full = {"shortcut_off": 0.6, "shortcut_reversed": 0.3}
    table = shortcut.frame([record(**full), record("tuning", **full), record(), record(status="failed", **full)])
    assert len(table) == 1
    assert table[["on", "off", "reversed"]].iloc[0].tolist() == [0.9, 0.6, 0.3]
    assert table["gap"].item() == pytest.approx(0.75)
    assert table["agree"].item() - table["conflict"].item() == pytest.approx(0.75)


def test_a_record_without_the_tests_is_named():
    with pytest.raises(LookupError, match="no ood/shortcut_off and no ood/shortcut_reversed"):
        shortcut.accuracies(record())
