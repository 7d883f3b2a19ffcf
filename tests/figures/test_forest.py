"""Forest plots show every replicate in its row."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from klnorm_lib.figures import forest
from klnorm_lib.study import stats
from tests.study.simulated import record

matplotlib.use("Agg")
LEVELS = {"plain": 0.5, "new": 0.7, "same": 0.5, "odd": 0.2}


@pytest.fixture
def records():
    """Three arms beside plain on two tasks: one far above, one that cannot be told, one far below."""
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 4, 5))
    made = [
        record(arm, draw, level + noise[t, a, draw], task)
        for t, task in enumerate(("words", "sounds"))
        for a, (arm, level) in enumerate(LEVELS.items())
        for draw in range(5)
    ]
    for one in made:
        one.study["label"] = one.study["arm"].upper()
        one.calibration["test"]["nll"] = 1.0
    return made


@pytest.fixture
def compared(records):
    return stats.with_holm([c for arm in ("new", "same", "odd") for c in stats.compare(records, arm, "plain")])


def test_a_panel_for_each_task_a_row_for_each_arm_and_every_replicate_a_dot(records, compared):
    fig = forest.draw(compared, forest.labels(records))
    assert [ax.get_title("left") for ax in fig.axes] == ["words", "sounds"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["NEW", "SAME", "ODD"]
    assert fig.get_supxlabel() == "arm minus PLAIN, percentage points\n200 labels, 5 replicates"
    for ax, task in zip(fig.axes, ("words", "sounds"), strict=True):
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        assert len(dots) == 3
        for line, arm in zip(dots, ("new", "same", "odd"), strict=True):
            (c,) = (c for c in compared if (c.task, c.arm) == (task, arm))
            np.testing.assert_allclose(line.get_xdata(), 100 * c.differences)
        marks = [line for line in ax.lines if line.get_marker() in "^vsD" and len(line.get_xdata()) == 1]
        assert [line.get_marker() for line in marks] == ["^", "D", "v"]
        bars = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
        assert bars[0] == pytest.approx([100 * c.low for c in compared if c.task == task][:1] + [bars[0][1]])
    plt.close(fig)


def test_what_lies_beyond_the_limit_stands_at_the_edge_with_its_number(compared):
    fig = forest.draw(compared, limit=8)
    ax = fig.axes[0]
    assert ax.get_xlim() == (-8, 8)
    assert all(np.abs(line.get_xdata()).max() <= 8 for line in ax.lines if line.get_marker() == "o")
    means = {c.arm: 100 * c.mean for c in compared if c.task == "words"}
    written = [text.get_text() for text in ax.texts if text.get_text()]
    assert written == [f"{means[arm]:+.0f}*".replace("-", "−") for arm in ("new", "odd")]
    plt.close(fig)


def test_panels_by_pair_have_a_row_for_each_setting(records):
    compared = [c for base in ("plain", "odd") for c in stats.compare(records, "new", base)]
    fig = forest.draw(compared, panel="pair")
    assert [ax.get_title("left") for ax in fig.axes] == ["minus plain", "minus odd"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["words", "sounds"]
    assert fig.get_supxlabel().startswith("new minus arm, percentage points\n")
    plt.close(fig)


def test_panels_by_baseline_have_a_row_for_each_arm(records):
    bases = {"plain": ("new", "odd", "same"), "same": ("new", "odd")}
    compared = [c for base, arms in bases.items() for arm in arms for c in stats.compare(records, arm, base)]
    fig = forest.draw(compared, forest.labels(records), panel="baseline")
    titles = [f"{task}\nminus {base}" for base in ("PLAIN", "SAME") for task in ("words", "sounds")]
    assert [ax.get_title("left") for ax in fig.axes] == titles
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["NEW", "ODD", "SAME"]
    assert fig.get_supxlabel() == "arm minus baseline, percentage points\n200 labels, 5 replicates"
    marks = [[y for line in ax.lines if line.get_marker() in "^vsD" for y in line.get_ydata()] for ax in fig.axes]
    assert marks == [[0.1, 1.1, 2.1]] * 2 + [[0.1, 1.1]] * 2
    (one,) = [c for c in compared if (c.task, c.arm, c.baseline) == ("sounds", "odd", "same")]
    dots = [line for line in fig.axes[3].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots[1].get_xdata(), 100 * one.differences)
    plt.close(fig)


def test_replicates_stand_above_each_panel_where_they_differ(records):
    fewer = [r for r in records if r.task["name"] == "words" or r.run["seed"] < 3]
    fig = forest.draw(stats.compare(fewer, "new", "plain"))
    assert [ax.get_title("left") for ax in fig.axes] == [
        "words\n200 labels\n5 replicates",
        "sounds\n200 labels\n3 replicates",
    ]
    assert fig.get_supxlabel() == "new minus plain, percentage points"
    plt.close(fig)


def test_settings_name_what_there_are_two_of(records):
    large = [record(arm, draw, 0.5 + 0.01 * draw, "words", size=500) for arm in ("new", "plain") for draw in range(3)]
    compared = stats.compare([*records, *large], "new", "plain")
    assert forest.settings(compared) == ["words at 200", "sounds at 200", "words at 500"]
    assert forest.behind(compared) == "200 to 500 labels, 3 to 5 replicates"
    for one in large:
        one.run["steps"] = 9
    by = ("task", "size", "encoder", "steps")
    assert forest.settings(stats.compare([*records, *large], "new", "plain", by=by))[2] == "words at 500, 9 steps"
    several = [c for metric in (None, "nll") for c in stats.compare(records, "new", "plain", metric=metric)]
    assert forest.settings(several) == ["words, accuracy", "sounds, accuracy", "words, nll", "sounds, nll"]
    with pytest.raises(ValueError, match="share a unit"):
        forest.draw(several)
    for nothing in (forest.settings, forest.draw):
        with pytest.raises(LookupError, match="nothing to compare"):
            nothing([])


def test_sets_of_one_task_go_by_their_names(records):
    words = [r for r in records if r.task["name"] == "words"]
    for r in words:
        r.ood["reviews/books"] = {"accuracy": 0.1 * r.run["seed"] + (r.study["arm"] == "new")}
    sets = [c for name in (None, "ood/reviews/books") for c in stats.compare(words, "new", "plain", metric=name)]
    assert forest.settings(sets) == ["words", "books"]


def test_units_and_metrics_in_words():
    assert forest.unit("ood/scitail/accuracy") == (100.0, "percentage points")
    assert forest.unit("nll") == (1.0, "nats")
    assert forest.metric_in_words("ood/scitail/accuracy") == "accuracy on scitail"
    assert forest.metric_in_words("ood/reviews/books/ece") == "calibration error on reviews/books"
    assert forest.metric_in_words("gap/accuracy") == "train-test gap"
