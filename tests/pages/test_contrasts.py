"""The words say what the comparisons say."""

import numpy as np
import pytest

from klnorm_lib.figures import forest
from klnorm_lib.pages import contrasts
from klnorm_lib.study import stats
from tests.study.simulated import record

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


def test_words_and_table_say_what_the_comparisons_say(records, compared):
    names = forest.labels(records)
    words, table = contrasts.in_words(compared, names).replace("\n  ", " "), contrasts.table(compared, names)
    for c in compared:
        assert table.loc[c.arm.upper(), c.task] == f"{contrasts.text(c)} {c.verdict}"
        assert f"{c.task} {contrasts.text(c)}" in words
    first = compared[0]
    assert contrasts.text(first) == f"{100 * first.mean:+.1f} [{100 * first.low:+.1f}, {100 * first.high:+.1f}]"
    assert f"NEW: better: words {contrasts.text(first)}" in words
    assert "6 comparisons of 5 paired replicates: better 2, worse 2, equivalent 0, cannot tell 2." in words
    assert (
        "Intervals that leave zero out: 4, where chance alone would give about 0.3; after Holm's correction: 4."
        in words
    )
    assert contrasts.summary(compared) in contrasts.alt(compared, names)
    assert "at words; sounds, for NEW, SAME, ODD." in contrasts.alt(compared, names)


def test_without_spread_there_is_no_interval_to_tell():
    same = [record(arm, draw, 0.5, "words") for arm in ("new", "plain") for draw in range(3)]
    (c,) = stats.compare(same, "new", "plain")
    assert contrasts.text(c) == "+0.0 [the same in every replicate]"
    (c,) = stats.compare([r for r in same if r.run["seed"] == 0], "new", "plain")
    assert contrasts.text(c) == "+0.0 [no interval]"
