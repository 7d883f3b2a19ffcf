"""Cards of methods say what the records say."""

from pathlib import Path

import pytest

from klnorm_lib import methods
from klnorm_lib.report import evidence
from tests.report.test_card import fake

CARDS = Path(__file__).parents[2] / "book" / "methods"


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
