"""Ranks and rates by hand; what each rule keeps: the mean, the multiset, the mirror image."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klnorm_lib.methods.rate_rules import RULES, ranks, rates_from_scores, site_type

SCORES = {
    "embeddings": 5.0,
    "layer.0.attention_probs": 1.0,
    "layer.0.ffn_output": 4.0,
    "layer.1.attention_probs": 2.0,
    "layer.1.ffn_output": 3.0,
}
names = st.lists(st.floats(1e-8, 1e8), min_size=1, max_size=40)


def named(values):
    kinds = ("attention_probs", "attention_output", "ffn_output")
    return {f"layer.{i // 3}.{kinds[i % 3]}": v for i, v in enumerate(values)}


def mean(rates):
    return math.fsum(rates.values()) / len(rates)


def test_the_published_rule_by_hand():
    assert ranks(SCORES) == dict(zip(SCORES, [4, 0, 3, 1, 2], strict=True))
    rates = rates_from_scores(SCORES, "rank", p_upper=0.2, p_lower=0.04)
    assert list(rates.values()) == pytest.approx([0.04, 0.2, 0.08, 0.16, 0.12])
    assert list(rates) == list(SCORES)


def test_thirty_seven_sites_are_a_mean_of_half_the_usual_rate():
    rates = rates_from_scores({f"layer.{i}.ffn_output": float(i) for i in range(37)})
    assert rates["layer.0.ffn_output"] == 0.1
    assert rates["layer.36.ffn_output"] == 0.0
    assert rates["layer.1.ffn_output"] == pytest.approx(0.1 - 0.1 / 36)
    assert mean(rates) == pytest.approx(0.05, abs=1e-15)


def test_the_other_rules_by_hand():
    assert list(rates_from_scores(SCORES, "reverse").values()) == pytest.approx([0.1, 0, 0.075, 0.025, 0.05])
    assert list(rates_from_scores(SCORES, "linear").values()) == pytest.approx([0, 0.1, 0.025, 0.075, 0.05])
    by_type = rates_from_scores(SCORES, "site_type")
    assert by_type["embeddings"] == 0
    assert by_type["layer.0.attention_probs"] == by_type["layer.1.attention_probs"] == pytest.approx((0.1 + 0.075) / 2)
    assert by_type["layer.0.ffn_output"] == by_type["layer.1.ffn_output"] == pytest.approx((0.025 + 0.05) / 2)
    powers = {"a": 1.0, "b": 10.0, "c": 1000.0}
    assert list(rates_from_scores(powers, "log").values()) == pytest.approx([0.1, 0.1 * 2 / 3, 0.0])
    assert list(rates_from_scores(powers, "linear").values()) == pytest.approx([0.1, 0.1 * 990 / 999, 0.0])


@pytest.mark.parametrize("rule", RULES)
def test_sites_that_do_not_differ_share_the_middle(rule):
    assert rates_from_scores({"embeddings": 3.0}, rule, 0.2, 0.1) == {"embeddings": pytest.approx(0.15)}
    equal = rates_from_scores(dict.fromkeys("abcd", 2.0), rule, 0.2, 0.1)
    assert list(equal.values()) == pytest.approx([0.15] * 4)


def test_ties_share_the_mean_of_their_ranks():
    scores = {"a": 1.0, "b": 2.0, "c": 2.0, "d": 5.0}
    assert list(ranks(scores).values()) == [0, 1.5, 1.5, 3]
    assert list(rates_from_scores(scores).values()) == pytest.approx([0.1, 0.05, 0.05, 0.0])


@given(names)
def test_what_the_rules_keep(values):
    scores = named(values)
    rates = {rule: rates_from_scores(scores, rule, 0.3, 0.1, seed=3) for rule in RULES}
    for rule in RULES:
        assert list(rates[rule]) == list(scores)
        assert all(0.1 - 1e-12 <= p <= 0.3 + 1e-12 for p in rates[rule].values())
    for rule in ("rank", "reverse", "random", "site_type"):
        assert mean(rates[rule]) == pytest.approx(0.2, abs=1e-12)
    assert sorted(rates["random"].values()) == sorted(rates["rank"].values())
    for site in scores:
        assert rates["reverse"][site] == pytest.approx(0.4 - rates["rank"][site], abs=1e-12)
    for rule in ("rank", "linear", "log"):
        falling = [rates[rule][site] for site in sorted(scores, key=scores.get)]
        assert all(a >= b - 1e-12 for a, b in zip(falling, falling[1:], strict=False))
    for kind in {site_type(site) for site in scores}:
        same = [site for site in scores if site_type(site) == kind]
        assert len({rates["site_type"][site] for site in same}) == 1


@given(names, st.floats(0.001, 0.09))
def test_match_mean_is_exact_and_keeps_proportions(values, wanted):
    scores = named(values)
    for rule in RULES:
        plain = rates_from_scores(scores, rule, 0.1, 0.05)
        matched = rates_from_scores(scores, rule, 0.1, 0.05, match_mean=wanted)
        assert mean(matched) == pytest.approx(wanted, rel=1e-12)
        factors = [matched[site] / plain[site] for site in scores]
        assert max(factors) == pytest.approx(min(factors))


def test_random_is_seeded_and_differs_between_seeds():
    scores = {f"layer.{i}.ffn_output": float(i) for i in range(12)}
    deals = [tuple(rates_from_scores(scores, "random", seed=seed).values()) for seed in range(5)]
    assert deals[0] == tuple(rates_from_scores(scores, "random", seed=0).values())
    assert len(set(deals)) == 5


def test_ranking_does_not_depend_on_the_scale_of_the_fisher():
    for rule in RULES:
        by_ten = rates_from_scores({site: 10 * s for site, s in SCORES.items()}, rule)
        assert by_ten == pytest.approx(rates_from_scores(SCORES, rule))


@pytest.mark.parametrize("bounds", [(0.1, 0.2), (1.0, 0.0), (0.1, -0.1), (math.nan, 0.0), (0.1, math.nan)])
def test_rates_out_of_range(bounds):
    with pytest.raises(ValueError, match="0 <= p_lower <= p_upper < 1"):
        rates_from_scores(SCORES, "rank", *bounds)


def test_what_cannot_be_done():
    with pytest.raises(ValueError, match=r"unknown rule 'ranked'; choose one of rank, reverse"):
        rates_from_scores(SCORES, "ranked")
    with pytest.raises(ValueError, match="no scores"):
        rates_from_scores({})
    with pytest.raises(ValueError, match=r"'log' needs positive scores, but embeddings scored 0"):
        rates_from_scores(SCORES | {"embeddings": 0.0}, "log")
    with pytest.raises(ValueError, match=r"rates of 1 or more \(layer\.0\.attention_probs"):
        rates_from_scores(SCORES, "rank", match_mean=0.6)
    with pytest.raises(ValueError, match=r"match_mean must lie in \[0, 1\)"):
        rates_from_scores(SCORES, "rank", match_mean=1.0)
    with pytest.raises(ValueError, match="cannot be reached"):
        rates_from_scores(SCORES, "rank", 0.0, 0.0, match_mean=0.05)
    assert set(rates_from_scores(SCORES, "rank", 0.0, 0.0, match_mean=0.0).values()) == {0.0}
