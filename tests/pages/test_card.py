"""The encoder's card says what the records say, and the interval is Student's."""

import json
from types import SimpleNamespace

import pytest

from klnorm_lib import encoders
from klnorm_lib.encoders.sources import HERE
from klnorm_lib.pages import card, card_claims


@pytest.mark.parametrize("name", encoders.names())
def test_committed_card_is_what_the_records_give(name):
    committed = (HERE / name / "README.md").read_text()
    assert card.refresh(name) == committed, "run: python -m klnorm_lib.pages.card"
    assert not [mark for mark in card.PARTS if f"<!-- {mark} -->\n<!--" in committed]
    assert "<!-- recipe -->" in committed


@pytest.mark.parametrize("name", encoders.names())
def test_records_of_a_card_are_of_the_weights_that_ship(name):
    for plan in filter(None, card_claims.plans_of(name)):
        measured = [r for r in card._packaged() if card_claims._planned(plan, r)]
        for which in (name, f"{name}:random"):
            found = {r.encoder["sha256"] for r in measured if r.encoder["name"] == which}
            assert found <= {encoders.resolve(which).sha256}, f"{which} has changed since; measure its card again"


def fake(encoder, rate, seed, validation, test):
    return SimpleNamespace(
        status="finished",
        method={"name": "plain"},
        encoder={"name": encoder},
        task={"name": "t", "primary_metric": "accuracy"},
        run={"learning_rate": rate, "seed": seed, "split_seed": seed, "size": 20, "steps": 9},
        validation={"accuracy": validation},
        test={"accuracy": test},
    )


def test_the_rate_is_chosen_on_validation_never_on_test(monkeypatch):
    records = []
    for seed in range(2):
        records += [fake("e", 1e-4, seed, 0.9, 0.6), fake("e", 1e-3, seed, 0.8, 0.99)]
        records += [fake("e:random", rate, seed, 0.5 + rate, 0.5 + 0.01 * seed) for rate in (1e-4, 1e-3)]
        records += [fake("e", 1e-2, seed, 1.0, 1.0)]  # a rate that the other arm was not tried at
    monkeypatch.setattr(card, "record_files", lambda: ["file"])
    monkeypatch.setattr(card, "read_records", lambda path: records)
    assert "| t | 20 | 2 | 0.600 at 0.0001 | 0.505 at 0.001 (largest tried) | +0.095" in card.twins("e")
    with pytest.raises(LookupError, match="run the comparison"):
        card.twins("other")
    records += [fake("e", 1e-3, 0, 0.9, 0.9)]
    records[-1].task = {"name": "without a twin", "primary_metric": "accuracy"}
    assert "without a twin" not in card.twins("e")


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
