"""The page on what could not be reproduced: every mark is filled, and each answer follows from its comparisons."""

import re

import numpy as np
import pytest

from klnorm_lib.pages import contrasts
from klnorm_lib.pages import could_not_reproduce as page
from klnorm_lib.study import stats
from tests.study.simulated import record


def made(levels, tasks=("t",), **fields):
    noise = np.random.default_rng(1).normal(0, 0.01, (len(tasks), len(levels), 5))
    return [
        record(arm, draw, level + noise[t, a, draw], task, **fields)
        for t, task in enumerate(tasks)
        for a, (arm, level) in enumerate(levels.items())
        for draw in range(5)
    ]


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ({"plain": 0.5, "new": 0.7}, "Shown in every comparison"),
        ({"plain": 0.7, "new": 0.5}, "Not shown; the opposite in 2 of 2 comparisons"),
        ({"plain": 0.5, "new": 0.5}, "Not shown in any of 2 comparisons, nor the opposite; equivalent in 1"),
    ],
)
def test_the_answer_follows_from_the_verdicts(levels, said):
    found = stats.compare(made(levels, ("t", "u")), "new", "plain")
    assert page.answer(found) == said
    assert page.answer([]) == page.NOTHING


LEVELS = made({"plain": 0.5, "up": 0.7, "down": 0.3, "same": 0.5})


def test_mixed_and_partial_answers():
    up, down, same = (
        made({"plain": 0.5, "new": level}, (task,)) for task, level in (("u", 0.7), ("d", 0.3), ("s", 0.5))
    )
    assert page.answer(stats.compare([*up, *down], "new", "plain")).startswith(
        "Mixed: better in 1 of 2 comparisons, worse in 1"
    )
    assert page.answer(stats.compare([*up, *same], "new", "plain")).startswith("Shown in 1 of 2 comparisons")


def test_families_are_compared_in_every_set_from_elsewhere():
    records = made({"klnorm_b": 0.6, "plain": 0.5, "layernorm": 0.5, "klnorm_beta0": 0.5})
    for one in records:
        one.ood = {"near": {"accuracy": one.test["accuracy"]}, "far": {"accuracy": 1 - one.test["accuracy"]}}
    found = page.comparisons({"ood": records}, page.CLAIMS["ood"])
    assert sorted({c.metric for c in found}) == ["ood/far/accuracy", "ood/near/accuracy"]
    assert len(found) == 6
    assert {c.verdict for c in found if "near" in c.metric} == {"better"}
    assert {c.verdict for c in found if "far" in c.metric} == {"worse"}
    assert page.comparisons({}, page.CLAIMS["ood"]) == []


def test_every_claim_asks_for_arms_that_its_study_has():
    for name, family in page.CLAIMS.items():
        plan = page.grid.load(family.study)
        assert set(family.arms) | set(family.baselines) - {page.SHARED} <= set(plan.arms), name
        assert set(family.parts or ()) <= set(plan.parts), name


def test_the_page_has_no_mark_left_and_quotes_its_intervals():
    arms = {"plain": 0.5, "klnorm_a": 0.5, "klnorm_b": 0.7, "klnorm_c": 0.4, "klnorm_beta0": 0.7, "layernorm": 0.7}
    records = made(arms, ("trec", "sst2"), hash="h", time={}, hardware={"cpu": "x"}, method={"name": "plain"})
    for number, one in enumerate(records):
        one.hash, one.run["learning_rate"] = str(number), 1e-3
    text = page.page({"text": records})
    assert text.startswith("# What we could not reproduce, and why\n")
    assert "<!--" not in text
    assert text.count("\n# ") == 0
    assert len(re.findall(re.escape(page.NOTHING), text)) >= 3  # no records of speech, ood, shortcut were given
    for c in page.comparisons({"text": records}, page.CLAIMS["text"]):
        assert f"{contrasts.text(c)} {c.verdict}" in text
    assert "klnorm study text --part full" in text
    assert "constants:" not in text


def test_an_unlucky_baseline_is_told():
    assert "alone is no gain" not in page._unlucky({"s": made({"plain": 0.6, page.SHARED: 0.6})})
    told = page._unlucky({"s": made({"plain": 0.5, page.SHARED: 0.6})})
    (c,) = stats.compare(made({"plain": 0.5, page.SHARED: 0.6}), "plain", page.SHARED)
    assert f"t {contrasts.text(c)}, in percentage points" in told


def test_clear_differences_between_two_learning_rates_are_named():
    records = made({"klnorm_b": 0.7, "plain": 0.5}, ("t", "u"))
    for one in records:
        fast = one.task["name"] == "t" and one.study["arm"] == "klnorm_b"
        one.run["learning_rate"] = 1e-3 if fast else 3e-4
    found = stats.compare(records, "klnorm_b", "plain")
    told = page._other_rates(records, found, {"klnorm_b": "ours", "plain": "plain"})
    assert told.endswith("may be theirs: ours and plain on t (0.001 and 0.0003).")
    for one in records:
        one.run["learning_rate"] = 3e-4
    assert page._other_rates(records, found, {}) == ""


def test_the_outermost_differences_are_the_lowest_and_the_highest():
    found = [c for arm in ("up", "down", "same") for c in stats.compare(LEVELS, arm, "plain")]
    assert page._outermost(found) == f"{contrasts.text(found[1])} and {contrasts.text(found[0])}"
    assert page._outermost([]) == "–"


def of_dropout():
    arms = {"uniform_10": 0.5, "uniform_05": 0.6, "guided": 0.6, "guided_random": 0.6, "guided_reverse": 0.55}
    arms |= {"guided_site_type": 0.6, "klnorm": 0.55, "klnorm_guided": 0.8}
    records = made(arms, ("trec", "sst2"))
    for one in records:
        rate = 0.1 if one.study["arm"] in ("uniform_10", "klnorm") else 0.05
        lines = [] if rate == 0.1 else [f"dropout: embeddings: 0.1 -> {rate}"]
        one.method = {"name": "x", "changed": lines}
    return records


def test_the_contrasts_on_guided_dropout_are_corrected_together():
    records = of_dropout()
    found = page.guided.contrasts(records)
    table = page._guided_verdicts({"guided": records})
    published = page.comparisons({"guided": records}, page.CLAIMS["guided"])
    assert f"| As published: guided against plain with a dropout of 0.1 | {page.answer(published)} |" in table
    for (arm, base), question in page.guided.DECISIVE.items():
        of = [c for c in found if (c.arm, c.baseline) == (arm, base)]
        assert len(of) == 2
        assert f"| {question} ({arm} minus {base}) | {page.answer(of)} | {page._outermost(of)} |" in table
    assert page._guided_verdicts({}).count(page.NOTHING) == 6
    assert "| e | guided | 1 | 0.050 | 0.050 | 0.050 |" in page._rates({"guided": records})
    assert page._rates({}) == page.NOTHING


def test_whether_two_methods_add_up_is_told_for_every_place():
    records = of_dropout()
    told = page._together({"guided": records})
    for c in stats.interaction(records, "klnorm_guided", "klnorm", "guided", "uniform_10"):
        assert f"{c.task} {contrasts.text(c)}, better" in told
    assert page._together({}) == page.NOTHING
