"""Cards of methods say what the records say."""

from pathlib import Path

import pytest

from klnorm_lib import methods
from klnorm_lib.report import evidence
from tests.report import made

CARDS = Path(__file__).parents[2] / "book" / "methods"


@pytest.mark.parametrize("name", methods.REGISTRY)
def test_committed_evidence_is_what_the_records_give(name):
    card = (CARDS / f"{name}.md").read_text()
    assert "<!-- evidence -->" in card
    assert evidence.refresh(card, name) == card, "run: python -m klnorm_lib.report.evidence book/methods"


def test_evidence_compares_with_both_baselines(monkeypatch):
    monkeypatch.setattr(evidence, "_studies", lambda: {"text": made.study()})
    # two tasks with the same gains of 0.03, 0.04, 0.05: t(0.975, 2) sd / sqrt(3) = 2.484 points, over sqrt(2) for both
    (line,) = [line for line in evidence.evidence("klnorm").splitlines() if line.startswith("| text")]
    assert line.startswith("| text | e | KL-Norm B | 2, 3 | +4.0 [+2.2, +5.8]: 2 better | – |")
    (line,) = [line for line in evidence.evidence("norm_head").splitlines() if line.startswith("| text")]
    assert line.endswith("| –|") or line.endswith("| – |")
    assert evidence.evidence("mixout") == evidence.NONE


def test_studies_without_tuning_are_no_evidence(monkeypatch):
    fixed = [made.record(arm, d, 0.5 + 0.01 * d, trials=1) for arm in ("plain", "klnorm_b") for d in range(3)]
    monkeypatch.setattr(evidence, "_studies", lambda: {"pilot": fixed})
    assert evidence.evidence("klnorm") == evidence.NONE
