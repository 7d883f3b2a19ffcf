"""Claims of a card: right arms, right differences, and words that say what the intervals say."""

from dataclasses import replace

import pytest

from klnorm_lib.pages import card_claims, card_table
from klnorm_lib.sweep import grid
from tests.pages.test_card import fake

STUDY = """
common: {steps: 80, batch_size: 8, max_length: 64, ood: false, test_rows: 1000}
tuning: {draws: final}
arms: {plain: {tune: {learning_rate: [1e-4, 1e-3]}}, frozen: {method: frozen}}
parts:
  pretrained: {tasks: &tasks {a: [20], b: [20], c: [20]}, encoders: [e, "e:random"], arms: [plain], draws: 3}
  baseline: {tasks: *tasks, encoders: [tf-idf], arms: [frozen], draws: 3}
"""
TABLE = """
arms: {frozen: {method: frozen}}
parts: {table: {tasks: {a: [20]}, encoders: [tf-idf, e, org/big], draws: 3}}
"""
GRID, LADDER = grid.parse(STUDY, "e"), grid.parse(TABLE, "table")


def scores(task, ours, counterpart, baseline):
    """Three seeds; the difference of each arm from its mean is the same for every seed, but for a little."""
    for seed in range(3):
        little = 0.001 * seed
        yield fake("e", seed, ours + little, task)
        yield fake("e:random", seed, counterpart, task)
        yield fake("tf-idf", seed, baseline - little, task, arm="frozen")


@pytest.fixture
def records():
    found = [*scores("a", 0.8, 0.5, 0.6), *scores("b", 0.7, 0.6, 0.75), *scores("c", 0.9, 0.1, 0.1)]
    found += [fake("e", s, 0.99, "a", rate=1e-4) for s in range(3)]  # the rate that was not chosen
    for tuning in found[-3:]:
        tuning.study["stage"] = "tuning"
    return found


def test_claims_pair_by_seed_and_say_where_they_hold(records):
    a, b, c = card_claims.claims(GRID, records)
    assert a.against[0].change == pytest.approx([0.3, 0.301, 0.302])
    assert a.against[1].change == pytest.approx([0.2, 0.202, 0.204])
    assert (a.holds, b.holds, c.holds) == (True, False, True)
    assert [o.verdict for o in b.against] == ["better", "worse"]
    assert [arm.name for arm in a.arms] == ["e", "e:random", "tf-idf, frozen"]
    table = card_claims.claims_table(GRID, [a, b, c])
    assert "on 2 of 3 tasks. By the mean alone: on 2 of 3." in table
    assert "On b it does not hold: it is worse than tf-idf, frozen." in table
    assert "| c | 20 | 3 | 0.901 at 0.001 (largest tried) |" in table
    assert "+0.301 [+0.299, +0.303] better" in table
    assert "Settings: 80 steps of 8 rows; learning rates 0.0001, 0.001; at most 64 tokens a text; tested on" in table
    assert "0.599 | +0.301" in table  # C differs from run to run, and is not printed


def test_words_for_every_outcome(records):
    a, b, _ = card_claims.claims(GRID, records)
    study = grid.parse(STUDY.replace("c: [20]", "c: [20], d: [20], e: [20]"), "e")
    unsure = replace(a.against[0], low=-1.0, high=1.6)
    doubt = replace(a, against=(unsure, a.against[1]))

    def words(*found):
        return card_claims.in_words(study, [replace(c, task=t) for c, t in zip(found, "abcde", strict=False)])

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
        found = card_claims.claims(GRID, kept)
        assert [claim.task for claim in found] == ["a", "c"]
        assert "Not measured yet: b." in card_claims.claims_table(GRID, found)
    assert card_claims.claims_table(GRID, []) == f"{card_claims.NONE}\n"
    assert card_table.markdown("e", LADDER, records) == f"{card_claims.NONE}\n"


def test_ladder_marks_the_best_and_pairs_with_the_first():
    means = {"tf-idf": 0.5, "e": 0.6, "org/big": 0.9}
    records = [fake(n, s, m + 0.01 * s, "a", arm="frozen") for n, m in means.items() for s in range(3)]
    records[3].test["accuracy"] += 0.003
    lines = card_table.markdown("e", LADDER, records).splitlines()
    assert lines[0] == "| task | labels | tf-idf | e | big | e minus tf-idf |"
    assert lines[2] == "| a | 20 | 0.510 | 0.611 | **0.910** | +0.101 [+0.097, +0.105] |"
    assert lines[3] == "| mean of 1 tasks | 20 | 0.510 | 0.611 | 0.910 |  |"


@pytest.mark.parametrize("study", [*card_claims.CLAIMS.values(), *card_table.STUDIES.values()])
def test_studies_of_cards_are_fair(study):
    plan = grid.load(study)
    replicates = {part.replicates for part in plan.parts.values()}
    assert replicates == {tuple((i, i) for i in range(5))}
    tasks = [list(part.tasks) for part in plan.parts.values()]
    assert all(of == tasks[0] for of in tasks)
    assert {len(arm.trials) for arm in plan.arms.values() if arm.method != "frozen"} <= {2}
