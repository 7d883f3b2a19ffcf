"""Claims of a card: right arms, right differences, and words that say what the intervals say."""

from dataclasses import replace

import pytest

from klnorm_lib.encoders.sources import RANDOM
from klnorm_lib.pages import card_claims, card_plan
from tests.pages.test_card import fake

PLAN = card_plan.Plan(
    "e",
    {"a": (20,), "b": (20,), "c": (20,)},
    [*card_plan.twins("e"), ("tf-idf", "frozen")],
    ("a", "b"),
    rates=(1e-3,),
    seeds=3,
)
LADDER = card_plan.Plan("e", {"a": (20,)}, [("tf-idf", "frozen"), ("e", "frozen"), ("org/big", "frozen")], seeds=3)


def run(task, encoder, method, seed, test, rate=1e-3, validation=0.5):
    record = fake(encoder, rate, seed, validation, test)
    record.method, record.task = {"name": method}, {"name": task, "primary_metric": "accuracy"}
    record.run |= {**card_plan.PLANS["text"].common, **card_plan.PLANS["text"].training}
    return record


def scores(task, ours, twin, baseline):
    """Three seeds; the difference of each arm from its mean is the same for every seed, but for a little."""
    for seed in range(3):
        little = 0.001 * seed
        yield run(task, "e", "plain", seed, ours + little)
        yield run(task, "e" + RANDOM, "plain", seed, twin)
        yield run(task, "tf-idf", "frozen", seed, baseline - little, rate=2e-5)


@pytest.fixture
def records():
    found = [*scores("a", 0.8, 0.5, 0.6), *scores("b", 0.7, 0.6, 0.75), *scores("c", 0.9, 0.1, 0.1)]
    found += [run("a", "e", "plain", s, 0.99, rate=0.1, validation=0.9) for s in range(3)]  # a rate of one arm only
    found.append(run("a", "e", "plain", 0, 0.0, validation=1.0))
    found[-1].run["steps"] = 7  # another study
    return found


def test_claims_pair_by_seed_and_say_where_they_hold(records):
    a, b, c = card_claims.claims(PLAN, records)
    assert a.against[0].change == pytest.approx([0.3, 0.301, 0.302])
    assert a.against[1].change == pytest.approx([0.2, 0.202, 0.204])
    assert (a.holds, b.holds, c.holds) == (True, False, True)
    assert [o.verdict for o in b.against] == ["better", "worse"]
    assert not c.claimed
    assert [arm.name for arm in a.arms] == ["e", "e:random", "tf-idf, frozen"]
    table = card_claims.claims_table(PLAN, [a, b, c])
    assert "on 1 of 2 tasks. By the mean alone: on 1 of 2." in table
    assert "On b it does not hold: it is worse than tf-idf, frozen." in table
    assert "| c (beside) | 20 | 3 | 0.901 at 0.001 (largest tried) |" in table
    assert "+0.301 [+0.299, +0.303] better" in table
    assert "Settings: 80 steps of 8 rows; learning rates 0.001; at most 64 tokens a text; tested on" in table
    assert "0.599 | +0.301" in table  # C differs from run to run, and is not told


def test_words_for_every_outcome(records):
    a, b, _ = card_claims.claims(PLAN, records)
    plan = replace(PLAN, sizes=dict.fromkeys("abcde", (20,)), claims=tuple("abcde"))
    unsure = replace(a.against[0], low=-1.0, high=1.6)
    doubt = replace(a, task="d", against=(unsure, a.against[1]))

    def words(*found):
        return card_claims.in_words(plan, [replace(c, task=t) for c, t in zip(found, "abcde", strict=False)])

    assert "On b it does not hold: we cannot tell it from e:random." in words(a, doubt, a)
    assert "Not measured yet: d, e." in words(a, doubt, a)
    assert "We asked for 4: that is not decided yet." in words(a, doubt, a)
    assert "We asked for 4: the claim holds." in words(a, a, a, a, b)
    assert "the claim holds by the mean only" in words(a, a, a, doubt, b)
    assert "the claim does not hold." in words(a, a, a, b, b)
    assert "Not measured" not in words(a, a, a, b, b)


def test_a_task_with_runs_missing_is_left_out_and_named(records):
    for lost in (("b", "tf-idf", 0), ("b", "e:random", 2)):
        kept = [r for r in records if (r.task["name"], r.encoder["name"], r.run["seed"]) != lost]
        found = card_claims.claims(PLAN, kept)
        assert [claim.task for claim in found] == ["a", "c"]
        assert "Not measured yet: b." in card_claims.claims_table(PLAN, found)
    assert card_claims.claims_table(PLAN, []) == f"{card_claims.NONE}\n"
    assert card_claims.ladder_table(LADDER, records) == f"{card_claims.NONE}\n"


def test_a_rate_at_which_a_run_failed_is_out(records):
    plan = replace(PLAN, rates=(1e-3, 0.1))
    extra = [
        run(t, e, "plain", s, 0.9, rate=0.1, validation=0.9)
        for t in "abc"
        for e in ("e", "e:random")
        for s in (0, 1, 2)
    ]
    found = card_claims.claims(plan, records + extra)
    assert {arm.chosen for c in found for arm in c.arms[:2]} == {"0.1 (largest tried)"}
    extra[0].status = "failed"
    failed = [r for r in records if r.run["learning_rate"] != 0.1] + extra
    assert [arm.chosen for arm in card_claims.claims(plan, failed)[0].arms[:2]] == ["0.001 (largest tried)"] * 2


def test_ladder_marks_the_best_and_pairs_with_the_first():
    means = {"tf-idf": 0.5, "e": 0.6, "org/big": 0.9}
    records = [run("a", n, "frozen", s, m + 0.01 * s) for n, m in means.items() for s in range(3)]
    records[3].test["accuracy"] += 0.003
    records.append(run("a", "e", "frozen", 9, 0.0))
    records[-1].run["max_length"] = 7  # another study
    lines = card_claims.ladder_table(LADDER, records).splitlines()
    assert lines[0] == "| task | labels | tf-idf | e | big | e minus tf-idf |"
    assert lines[2] == "| a | 20 | 0.510 | 0.611 | **0.910** | +0.101 [+0.097, +0.105] |"
    assert lines[3] == "| mean of 1 tasks | 20 | 0.510 | 0.611 | 0.910 |  |"


def test_plans_are_fair():
    for plan in card_plan.PLANS.values():
        assert set(plan.claims) <= set(plan.sizes)
        runs = list(plan.runs())
        assert len({r.command() for r in runs}) == len(runs)
        for task in plan.sizes:
            rates = {
                e: {r.learning_rate for r in runs if (r.task, r.encoder, r.method) == (task, e, "plain")}
                for e, method in plan.arms
                if method == "plain"
            }
            assert len(set(map(frozenset, rates.values()))) <= 1
            assert {r.seed for r in runs if r.task == task} == set(range(plan.seeds))
        assert all(r.seed == r.split_seed for r in runs)
    assert [len(p.claims) for p in map(card_plan.PLANS.get, ("text", "speech"))] == [5, 5]
    assert card_claims.plans_of("klnorm-tiny")[1] is card_plan.PLANS["text-table"]
