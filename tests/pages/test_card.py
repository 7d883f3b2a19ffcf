"""The encoder's card says what the records say, and the interval is Student's."""

import json
from types import SimpleNamespace

import pytest

from klnorm_lib import encoders
from klnorm_lib.encoders.sources import HERE
from klnorm_lib.pages import card, card_claims, card_table


@pytest.mark.parametrize("name", encoders.names())
def test_committed_card_is_what_the_records_give(name):
    committed = (HERE / name / "README.md").read_text()
    assert card.refresh(name) == committed, "run: python -m klnorm_lib.pages.card"
    assert not [mark for mark in card.PARTS if f"<!-- {mark} -->\n<!--" in committed]
    assert "<!-- recipe -->" in committed


@pytest.mark.parametrize("name", encoders.names())
def test_records_of_a_card_are_of_the_weights_that_ship(name):
    for study in filter(None, (card_claims.CLAIMS.get(name), card_table.STUDIES.get(name))):
        measured = card._records(study)
        for which in (name, f"{name}:random"):
            found = {r.encoder["sha256"] for r in measured if r.encoder["name"] == which}
            assert found <= {encoders.resolve(which).sha256}, f"{which} has changed since; measure its card again"


RATES = (1e-4, 1e-3)


def fake(encoder, seed, test, task="t", arm="plain", rate=1e-3, **more):
    """A final record of an arm that was tuned over ``RATES``; ``more``: other fields of the run."""
    return SimpleNamespace(
        status="finished",
        method={"name": arm},
        encoder={"name": encoder},
        task={"name": task, "primary_metric": "accuracy"},
        run={"seed": seed, "split_seed": seed, "size": 20, **more},
        test={"accuracy": test},
        study={
            "arm": arm,
            "stage": "final",
            "trial": {} if arm == "frozen" else {"learning_rate": rate},
            "grid": [{"learning_rate": r} for r in RATES],
        },
    )


def test_the_counterpart_is_paired_by_seed_at_the_rates_that_the_study_chose(monkeypatch):
    records = []
    for seed in range(2):
        records += [fake("e", seed, 0.6, rate=1e-4), fake("e:random", seed, 0.5 + 0.01 * seed)]
        records += [fake("e", seed, 0.9), fake("e", seed, 0.9, task="alone")]
        records[-2].study["stage"] = "tuning"
    monkeypatch.setattr(card, "_studies", lambda: {"e": records})
    table = card.counterpart("e")
    assert "| t | 20 | 2 | 0.600 at 0.0001 | 0.505 at 0.001 (largest tried) | +0.095" in table
    assert "alone" not in table
    with pytest.raises(LookupError, match="run the comparison"):
        card.counterpart("other")


def test_recipe_of_speech_tells_what_was_heard(tmp_path, monkeypatch):
    config = {"layers": 4, "hidden_size": 256, "heads": 4, "corpora": ["novels"], "batch_size": 24}
    told = {"config": {**config, "learning_rate": 1e-3}, "audio_seconds_seen": 7200, "corpus_seconds": 3600}
    told |= {"parameters": 4_000_000, "utterances": 1000, "voices": 30, "languages": 9, "phonemes": 50, "step": 100}
    told |= {"seconds": 600, "device": "cpu", "threads": 1}
    told |= {"heldout_phoneme_accuracy": 0.5, "heldout_phoneme_chance": 0.1}
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "pretraining.json").write_text(json.dumps(told))
    monkeypatch.setattr(card, "HERE", tmp_path)
    lines = card.recipe("e").splitlines()
    assert "| synthesised speech | 1.0 hours, 1,000 utterances |" in lines
    assert "| held-out phoneme accuracy of a frame | 50.0% (always the most frequent: 10.0%) |" in lines


def test_recipe_of_text_tells_the_teacher(tmp_path, monkeypatch):
    told = json.loads((HERE / "klnorm-nano" / "pretraining.json").read_text())
    assert "teacher" not in card.recipe("klnorm-nano")
    told["config"] |= {"teacher": "org/big", "distillation": 4.0, "shorten": True}
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "pretraining.json").write_text(json.dumps(told))
    monkeypatch.setattr(card, "HERE", tmp_path)
    assert "| teacher, in pretraining only | org/big, its weight in the loss 4 |" in card.recipe("e")
