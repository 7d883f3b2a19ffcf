"""The encoder's card says what the records say, and the interval is Student's."""

from types import SimpleNamespace

import pytest

from klnorm_lib import encoders
from klnorm_lib.encoders.sources import HERE
from klnorm_lib.report import card


@pytest.mark.parametrize("name", encoders.names())
def test_committed_card_is_what_the_records_give(name):
    committed = (HERE / name / "README.md").read_text()
    assert card.refresh(name) == committed, "run: python -m klnorm_lib.report.card"
    assert "<!-- twins -->\n<!--" not in committed


def fake(encoder, rate, seed, validation, test):
    return SimpleNamespace(
        status="finished",
        method={"name": "plain"},
        encoder={"name": encoder},
        task={"name": "t", "primary_metric": "accuracy"},
        run={"learning_rate": rate, "seed": seed, "split_seed": seed, "size": 20},
        validation={"accuracy": validation},
        test={"accuracy": test},
    )


def test_the_rate_is_chosen_on_validation_never_on_test(monkeypatch):
    records = []
    for seed in range(2):
        records += [fake("e", 1e-4, seed, 0.9, 0.6), fake("e", 1e-3, seed, 0.8, 0.99)]
        records += [fake("e:random", rate, seed, 0.5 + rate, 0.5 + 0.01 * seed) for rate in (1e-4, 1e-3)]
        records += [fake("e", 1e-2, seed, 1.0, 1.0)]  # a rate that the other arm was not tried at
    monkeypatch.setattr(card, "packaged", lambda: ["file"])
    monkeypatch.setattr(card, "read_records", lambda path: records)
    assert "| t | 20 | 2 | 0.600 at 0.0001 | 0.505 at 0.001 (largest tried) | +0.095" in card.twins("e")
    with pytest.raises(LookupError, match="run the comparison"):
        card.twins("other")
