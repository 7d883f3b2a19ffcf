"""The study of dropout rates: rates are read from the records, contrasts are those that were named beforehand."""

import numpy as np
import pytest

from klnorm_lib.pages import guided
from klnorm_lib.study import stats
from klnorm_lib.sweep import grid
from tests.study.simulated import detectable_by_hand, holm_by_hand, record

SITES = ("embeddings", "layer.0.attention_probs", "layer.0.ffn_output", "layer.1.attention_probs", "layer.1.ffn_output")


def run(arm, draw, score=0.5, rates=None, encoder="e", prefix="dropout: ", **fields):
    """A record whose method says ``rates`` for the sites, in the words of the methods; the encoder came with .1."""
    lines = [f"{prefix}{site}: 0.1 -> {p:g}" for site, p in zip(SITES, rates or (), strict=False)]
    made = record(arm, draw, score, encoder=encoder, **fields)
    made.method = {"name": "x", "changed": ["klnorm: pooler: added KL-Norm (B), 16 features", *lines]}
    return made


def test_rates_are_those_that_the_records_tell():
    rank = (0.0, 0.1, 0.025, 0.075, 0.05)
    records = [run("uniform_10", d) for d in range(3)]
    records += [run("guided", d, rates=rank) for d in range(3)]
    records += [run("guided_random", d, rates=tuple(np.roll(rank, d)), prefix="guided_dropout: ") for d in range(3)]
    records += [run("both", d, rates=[0.02 * (d + 1)] * 5, prefix="") for d in range(3)]
    table = guided.rates(records).set_index("arm")
    assert table.loc["uniform_10", ["sites", "runs", "mean", "low", "high"]].tolist() == pytest.approx(
        [5, 3, 0.1, 0.1, 0.1]
    )
    assert table.loc["guided", ["low", "high", "orders"]].tolist() == [0.0, 0.1, 1]
    assert table.loc["guided", ["mean", "least", "most"]].tolist() == pytest.approx([0.05] * 3)
    assert table.loc["guided", "attention_probs"] == pytest.approx((0.1 + 0.075) / 2)
    assert table.loc["guided", ["embeddings", "ffn_output"]].tolist() == pytest.approx([0.0, (0.025 + 0.05) / 2])
    assert table.loc["guided_random", "orders"] == 3
    assert table.loc["guided_random", "mean"] == pytest.approx(0.05)
    assert table.loc["both", ["mean", "least", "most"]].tolist() == pytest.approx([0.04, 0.02, 0.06])
    assert guided.site_rates(records[3]) == dict(zip(SITES, rank, strict=True))
    assert guided.site_rates(records[0]) == {}
    records[0].method["changed"] = ["gaussian_dropout: layer.11.attention_probs: 0.1 -> 2.5e-05, Gaussian", "p: 1 -> 2"]
    assert guided.site_rates(records[0]) == {"layer.11.attention_probs": 2.5e-05}


def test_an_encoder_whose_rates_no_run_tells_is_an_error():
    with pytest.raises(LookupError, match="no run with e changed a dropout rate"):
        guided.rates([run("uniform_10", 0)])


def made():
    noise = np.random.default_rng(0).normal(0, 0.01, (5, 6))
    levels = {"uniform_10": 0.5, "uniform_05": 0.6, "guided": 0.6, "guided_random": 0.6, "guided_reverse": 0.4}
    records = [run(a, d, v + noise[i, d]) for i, (a, v) in enumerate(levels.items()) for d in range(6)]
    return records + [run("guided_site_type", d, 0.6 + noise[0, d] / 2) for d in range(6)]


def test_the_decisive_contrasts_are_one_family():
    found = guided.contrasts(made())
    assert [(c.arm, c.baseline) for c in found] == list(guided.DECISIVE)
    assert {(c.arm, c.baseline): c.verdict for c in found}["uniform_05", "uniform_10"] == "better"
    assert {(c.arm, c.baseline): c.verdict for c in found}["guided", "guided_reverse"] == "better"
    np.testing.assert_allclose([c.p_holm for c in found], holm_by_hand([c.p_value for c in found]))
    with pytest.raises(LookupError, match="guided_site_type"):
        guided.contrasts([r for r in made() if r.study["arm"] != "guided_site_type"])


def test_the_published_difference_is_the_sum_of_two_steps():
    pairs = [("guided", "uniform_10"), ("guided", "uniform_05"), ("uniform_05", "uniform_10")]
    published, information, less = guided.contrasts(made(), pairs)
    np.testing.assert_allclose(published.differences, information.differences + less.differences, atol=1e-12)
    assert published.mean == pytest.approx(information.mean + less.mean)


def test_every_arm_against_every_baseline_that_is_there():
    found = guided.against(made(), ("uniform_10", "uniform_05", "guided"), ("uniform_10", "uniform_05", "absent"))
    assert [(c.arm, c.baseline) for c in found] == [
        ("uniform_05", "uniform_10"),
        ("guided", "uniform_10"),
        ("uniform_10", "uniform_05"),
        ("guided", "uniform_05"),
    ]
    np.testing.assert_allclose([c.p_holm for c in found], holm_by_hand([c.p_value for c in found]))
    twice = [run(r.study["arm"], r.run["seed"], r.test["accuracy"], task=t) for t in ("t", "u") for r in made()]
    found = guided.against(twice, ("uniform_05", "guided"), ("uniform_10", "guided"))
    assert [(c.task, c.baseline) for c in found] == [
        (task, base) for task in ("t", "u") for base in ("uniform_10", "uniform_10", "guided")
    ]
    elsewhere = [run("far", d, 0.5 + d / 100, task="other") for d in range(3)]
    assert guided.against([*made(), *elsewhere], ("far",), ("uniform_10",)) == []


def test_what_could_have_been_seen_rests_on_the_spread():
    found = guided.contrasts(made())
    table = guided.detectable(found)
    assert len(table) == len(found)
    first, row = found[0], table.iloc[0]
    sd = first.differences.std(ddof=1)
    assert row["sd"] == pytest.approx(100 * sd)
    assert row["detectable"] == pytest.approx(100 * detectable_by_hand(sd, 6), rel=1e-4)
    assert row["half"] == pytest.approx(50 * (first.high - first.low))
    shifted = [
        run(r.study["arm"], r.run["seed"], r.test["accuracy"] + 0.2 * (r.study["arm"] == "guided")) for r in made()
    ]
    np.testing.assert_allclose(guided.detectable(guided.contrasts(shifted))["detectable"], table["detectable"])
    assert (guided.detectable(found, wanted=0.9)["detectable"] > table["detectable"]).all()
    alike = [run(arm, d, 0.5) for arm in ("guided", "uniform_05") for d in range(3)]
    assert guided.detectable(stats.compare(alike, "guided", "uniform_05")).empty


def test_the_study_has_every_arm_of_the_contrasts_where_they_are_decided():
    plan = grid.load("guided")
    arms = {arm for pair in guided.DECISIVE for arm in pair}
    for name in guided.DECIDING:
        part = plan.parts[name]
        assert arms <= set(part.arms), name
        assert len(part.replicates) >= 5
        assert len({plan.arms[arm].run_fields.get("learning_rate") for arm in arms}) == 1  # rates differ, nothing else
        assert all(len(plan.arms[arm].trials) == 1 for arm in arms)
