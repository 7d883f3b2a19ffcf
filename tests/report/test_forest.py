"""A method against its controls: the right seeds at the right rates, and words that follow from the numbers."""

import matplotlib
import numpy as np
import pytest
from scipy import stats

from klnorm_lib.report import forest
from tests.report.test_card import fake

matplotlib.use("Agg")


def record(method, seed, test, rate=1e-3, validation=0.5, task="words", **args):
    made = fake("e", rate, seed, validation, test)
    made.task = {"name": task, "primary_metric": "accuracy"}
    made.rows = {"train": 80, "validation": 20}
    made.method = {"name": method, "fields": {"beta": 1e-3} | args if method == "klnorm" else args}
    made.run = {**made.run, "steps": 5, "method_args": args}
    made.test, made.ood = {"accuracy": test}, {"noise": {"accuracy": test / 2}}
    return made


@pytest.fixture
def records():
    noise = np.random.default_rng(0).normal(0, 0.01, (3, 5))
    return [
        record(method, seed, level + noise[i, seed], **args)
        for i, (method, level, args) in enumerate(
            [("klnorm", 0.7, {}), ("plain", 0.5, {}), ("klnorm", 0.7, {"beta": 0.0})]
        )
        for seed in range(5)
    ]


def test_rows_by_hand(records):
    table = forest.comparisons(records)
    assert list(table["control"]) == ["plain", "plain", "klnorm(beta=0.0)", "klnorm(beta=0.0)"]
    assert list(table["split"]) == ["test", "ood/noise"] * 2
    change = 100 * np.array([records[i].test["accuracy"] - records[5 + i].test["accuracy"] for i in range(5)])
    first = table.iloc[0]
    np.testing.assert_allclose(first["change"], change)
    np.testing.assert_allclose(table.iloc[1]["change"], change / 2)
    interval = stats.ttest_1samp(change, 0).confidence_interval(0.95)
    assert (first["low"], first["high"]) == pytest.approx(tuple(interval))
    assert (first["size"], first["verdict"], first["holm"]) == (100, "better", True)
    assert table.iloc[2]["verdict"] == "cannot tell"
    assert not table.iloc[2]["holm"]


def test_rate_is_chosen_on_validation_for_the_shifts_too(records):
    flattering = [record("klnorm", seed, 1.0, rate=1e-2, validation=0.1) for seed in range(5)]
    flattering += [record("plain", seed, 0.0, rate=1e-2, validation=0.1) for seed in range(5)]
    for split in (0, 1):
        one, two = forest.comparisons(records).iloc[split], forest.comparisons(records + flattering).iloc[split]
        np.testing.assert_array_equal(one["change"], two["change"])


def test_holm_is_stricter_than_each_interval_alone():
    # 20 rows, p just under .05 each: every interval leaves zero out, none survives
    change = np.array([0.0, 0.01, 0.02, 0.03, 0.04])
    change += stats.sem(change) * stats.t.ppf(0.98, 4) - change.mean()
    made = [record("klnorm", seed, 0.5 + c, task=f"t{t}") for t in range(10) for seed, c in enumerate(change)]
    made += [record("plain", seed, 0.5, task=f"t{t}") for t in range(10) for seed in range(5)]
    table = forest.comparisons(made)
    assert (table["verdict"] == "better").all()
    assert not table["holm"].any()
    alone = made[:5] + made[50:55]
    for one in alone:
        one.ood = {}
    assert forest.comparisons(alone)["holm"].all()


def test_equal_arms_and_single_seeds(records):
    same = [record("vib", seed, records[seed].test["accuracy"]) for seed in range(5)]
    row = forest.comparisons(records[:5] + same).iloc[0]
    assert (row["low"], row["high"], row["verdict"], row["p"]) == (0, 0, "cannot tell", 1)
    for nothing in ([], records[:5], records[5:10], [records[0], records[5]]):
        with pytest.raises(LookupError, match="no two seeds of klnorm"):
            forest.comparisons(nothing)


def test_figure_shows_every_seed_and_every_row(records):
    table = forest.comparisons(records)
    fig = forest.draw(table)
    assert [ax.get_title("left") for ax in fig.axes] == [
        "words, 100 labels, test",
        "words, 100 labels, shift of noise",
    ]
    for ax, part in zip(fig.axes, forest.panels(table).values(), strict=True):
        dots = [line.get_xdata() for line in ax.lines if line.get_marker() == "o"]
        for shown, expected in zip(dots, part["change"], strict=True):
            np.testing.assert_array_equal(shown, expected)
        assert [label.get_text() for label in ax.get_yticklabels()] == ["plain *", "klnorm(beta=0.0)"]
    matplotlib.pyplot.close(fig)


def test_words_say_what_the_rows_say(records):
    table = forest.comparisons(records)
    told = forest.in_words(table)
    row = table.iloc[0]
    assert told.splitlines()[0] == "words, 100 labels, test: klnorm minus control, points"
    assert f"{row['change'].mean():+5.1f} [{row['low']:+5.1f}, {row['high']:+5.1f}] better, after Holm too" in told
    clear = (table["verdict"] != "cannot tell").sum()
    assert f"{clear} of 4 intervals leave zero out; chance alone would give about 0.2." in told
    assert "Pairs of seeds: 5." in told
