"""Cards of methods say what the records say."""

from pathlib import Path

import pytest

from klnorm_lib import methods
from klnorm_lib.pages import evidence
from tests.pages import made

CARDS = Path(__file__).parents[2] / "book" / "methods"


@pytest.mark.parametrize("name", methods.REGISTRY)
def test_committed_evidence_is_what_the_records_give(name):
    card = (CARDS / f"{name}.md").read_text()
    assert "<!-- evidence -->" in card
    assert evidence.refresh(card, name) == card, "run: python -m klnorm_lib.pages.evidence book/methods"


def test_evidence_compares_with_both_baselines(monkeypatch):
    monkeypatch.setattr(evidence, "_studies", lambda: {"text": made.study()})
    # two tasks with the same gains of 0.03, 0.04, 0.05: t(0.975, 2) sd / sqrt(3) = 2.484 points of a hundred, / sqrt(2)
    (line,) = [line for line in evidence.evidence("klnorm").splitlines() if line.startswith("| text")]
    assert line.startswith("| text | e | KL-Norm B | 4 | 2, 3 | +4.0 [+2.2, +5.8]: 2 better | +")
    table = evidence.evidence("norm_head").splitlines()
    assert (
        "| study | encoder | arm | trials | settings, replicates | minus plain |" in table
    )  # nothing else to compare with
    assert not any(note in "\n".join(table) for note in evidence.NOTES.values())
    assert evidence.evidence("mixout") == evidence.NONE


def test_studies_without_tuning_are_no_evidence(monkeypatch):
    fixed = [made.record(arm, d, 0.5 + 0.01 * d, trials=1) for arm in ("plain", "klnorm_b") for d in range(3)]
    monkeypatch.setattr(evidence, "_studies", lambda: {"pilot": fixed})
    assert evidence.evidence("klnorm") == evidence.NONE


def test_dropout_is_compared_with_half_of_it_too(monkeypatch):
    scores = {"uniform_10": 0.5, "uniform_05": 0.54, "dropout_tuned": 0.56}
    records = [
        made.record(
            arm,
            d,
            score + 0.01 * d * {"uniform_10": 1, "uniform_05": 0, "dropout_tuned": 2}[arm],
            trials=4 if arm == "dropout_tuned" else 1,
        )
        for arm, score in scores.items()
        for d in range(3)
    ]
    for r in records:
        r.method = {**r.method, "name": "plain" if r.study["arm"] == "uniform_10" else "klnorm+dropout"}
    monkeypatch.setattr(evidence, "_studies", lambda: {"guided": records})
    for card in ("dropout", "klnorm"):  # methods that are applied together stand on both cards
        half, tuned = [line for line in evidence.evidence(card).splitlines() if line.startswith("| guided")]
        assert half.startswith("| guided | e | uniform_05 | 1 | 1, 3 | +3.0 [")
        assert half.endswith("| – |")
        assert tuned.startswith("| guided | e | dropout_tuned | 4 | 1, 3 | +7.0 [")
        assert tuned.split(" | ")[-1].startswith("+4.0 [")
    assert "better than plain with a dropout of 0.05" in evidence.evidence("dropout").replace("\n", " ")
    assert evidence.evidence("plain_norm") == evidence.NONE
