"""The plot of accuracy against cost shows every arm, with its name, its interval and its cost."""

import math

import pytest
from matplotlib.text import Text

from klnorm_lib.figures import pareto as figure
from klnorm_lib.figures import style
from klnorm_lib.pages import pareto
from klnorm_lib.pages.outcomes import outcomes
from tests.pages import made


@pytest.fixture(scope="module")
def found():
    return outcomes(made.study(), "text")


def test_gains_and_costs_are_over_the_settings_that_all_arms_share(found):
    here, settings = pareto.arms(found)
    assert [(task, size) for task, size, _ in settings] == [("trec", 200), ("sst2", 200)]
    by_label = {arm.label: arm for arm in here}
    assert here[0].label == "plain"
    assert by_label["KL-Norm B"].gain == pytest.approx(4.0)
    assert by_label["KL-Norm B"].time == pytest.approx(1.2)
    assert by_label["KL-Norm B"].added == 25_000
    assert by_label["VIB"].gain == pytest.approx(-11.0)
    assert by_label["VIB"].low < -11 < by_label["VIB"].high


def test_a_study_of_few_arms_or_in_one_setting_has_no_plot(found):
    assert pareto.shown(found)
    assert not pareto.shown([c for c in found if not (c.arm == "vib" and c.task == "sst2")])
    assert not pareto.shown([c for c in found if c.arm in ("plain", "vib")])
    assert pareto.sections({"text": [c for c in found if c.arm == "plain"]}) == []


def test_every_arm_is_a_labelled_point_with_its_interval(found):
    style.use()
    here, _ = pareto.arms(found)
    plot = figure.draw(here)
    for ax, costs in zip(plot.axes, ([a.time for a in here], [a.added for a in here]), strict=True):
        assert {text.get_text() for text in ax.texts} == {arm.label for arm in here}
        drawn = [line.get_xydata()[0].tolist() for line in ax.lines if line.get_marker() == "o"]
        assert drawn == [[cost, arm.gain] for cost, arm in zip(costs, here, strict=True)]
        bars = [list(line.get_ydata()) for line in ax.lines if line.get_marker() == "None" and line.get_alpha() == 0.5]
        assert bars == [[arm.low, arm.high] for arm in here]
        low, high = ax.get_xlim()
        assert all(low < cost < high for cost in costs)


def test_names_do_not_cover_each_other(found):
    style.use()
    labels = [f"an arm with a rather long name {i}" for i in range(16)]
    plot = figure.draw([figure.Arm(label, 0.01 * i, 0, 1, 1 + 0.001 * i, 100) for i, label in enumerate(labels)])
    plot.canvas.draw()
    for ax in plot.axes:
        boxes = sorted((Text.get_window_extent(text) for text in ax.texts), key=lambda box: box.y0)
        assert all(one.y1 <= two.y0 for one, two in zip(boxes, boxes[1:], strict=False))


def test_the_line_joins_arms_that_none_beats_in_both(found):
    arms = [figure.Arm(str(i), gain, gain, gain, 1, 1) for i, gain in enumerate((0, 1, 0.5, -1))]
    assert figure._front(arms, [1.0, 2.0, 3.0, math.nan]) == [(1.0, 0), (2.0, 1)]


def test_measured_steps_are_a_plot_of_their_own(found, monkeypatch):
    monkeypatch.setattr(pareto, "_steps", lambda settings: {"klnorm_b": 1.5, "layernorm": 1.1})
    style.use()
    here, _ = pareto.arms(found)
    ax = figure.draw(here).axes[2]
    assert {text.get_text() for text in ax.texts} == {"plain", "KL-Norm B", "LayerNorm"}
    assert sorted(line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o") == [1.0, 1.1, 1.5]
    low, high = ax.get_xlim()
    assert low < 1 < 1.5 < high


def test_steps_of_two_arms_are_no_plot(found, monkeypatch):
    monkeypatch.setattr(pareto, "_steps", lambda settings: {"klnorm_b": 1.5})
    style.use()
    assert len(figure.draw(pareto.arms(found)[0]).axes) == 2


def test_arms_of_one_setting_only_do_not_hide_the_others(found):
    base = {c.task: c for c in found if c.arm == "plain" and c.split == "test"}
    more = [c for c in outcomes([*made.study(), *(made.record("frozen", d, 0.5 + 0.02 * d) for d in range(3))], "text")]
    here, settings = pareto.arms(more)
    assert [task for task, *_ in settings] == list(base)
    assert {arm.label for arm in here} == {"plain", "LayerNorm", "KL-Norm B", "VIB"}  # frozen features lack sst2
