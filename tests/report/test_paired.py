"""Intervals and verdicts of paired seeds, and cards that say what the records say."""

import math
from pathlib import Path

import numpy as np
import pytest

from klnorm_lib import methods
from klnorm_lib.report import evidence, paired
from tests.report.test_card import fake

CARDS = Path(__file__).parents[2] / "book" / "methods"


def test_t_interval_by_hand():
    differences = np.array([0.1, 0.2, 0.3, 0.2])
    half = 3.182446 * differences.std(ddof=1) / math.sqrt(4)
    assert paired.t_interval(differences) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)
    with pytest.raises(ValueError, match="at least 2"):
        paired.t_interval(np.array([0.1]))


def test_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(0.3, 1.0, (2000, 5))
    covered = np.mean([low <= 0.3 <= high for low, high in map(paired.t_interval, draws)])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_differences_use_shared_seeds_only():
    first, second = {(0, 0): 0.9, (1, 1): 0.8, (2, 2): 0.1}, {(1, 1): 0.5, (0, 0): 0.7}
    assert paired.differences(first, second) == pytest.approx([0.2, 0.3])


def test_arms_that_share_no_rate_are_not_compared():
    with pytest.raises(LookupError, match="same grid"):
        paired.shared_rates([fake("e", 1e-3, 0, 0.5, 0.5)], [fake("e", 1e-4, 0, 0.5, 0.5)])


def test_verdict():
    assert paired.verdict(0.01, 1.0) == "better"
    assert paired.verdict(-1.0, -0.01) == "worse"
    assert paired.verdict(-1.0, 1.0) == paired.verdict(0.0, 1.0) == "cannot tell"


@pytest.mark.parametrize("name", methods.REGISTRY)
def test_committed_evidence_is_what_the_records_give(name):
    card = (CARDS / f"{name}.md").read_text()
    assert "<!-- evidence -->" in card
    assert evidence.refresh(card, name) == card, "run: python -m klnorm_lib.report.evidence book/methods"


def test_evidence_compares_with_both_baselines(monkeypatch):
    records = []
    for seed in range(3):
        for method, test in (("plain", 0.5), ("vib", 0.6 + 0.01 * seed)):
            record = fake("e", 1e-3, seed, 0.5, test)
            record.method = {"name": method}
            record.run = {**record.run, "steps": 5, "method_args": {}}
            records.append(record)
    monkeypatch.setattr(evidence, "packaged", lambda: ["file"])
    monkeypatch.setattr(evidence, "read_records", lambda path: records)
    assert "| t | 20 | e | `vib` | +0.110 [+0.085, +0.135], 3 seeds: better | – |" in evidence.evidence("vib")
    assert evidence.evidence("klnorm") == evidence.NONE
