"""Synthesised speech: labels cover the sound, shards are functions of the seed, what is missing is named."""

import ctypes.util
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from klnorm_lib.pretraining.speech import corpus as speech_corpus
from klnorm_lib.pretraining.speech.corpus import LABEL, Shard, build, texts
from klnorm_lib.pretraining.speech.synthesis import Espeak, _trimmed, flite
from tests.pretraining.speechless import PHONEMES, Hummer, hum_flite

SETTINGS = SimpleNamespace(seed=3, shards=2, shard_size=50, vocabulary=5, word_fraction=0.6, flite_fraction=0.2)
TEXT = speech_corpus.Texts(["tomato", "robin", "mist", "zebra", "dune", "kilo"], ["a robin in the mist"], ["old boats"])

needs_espeak = pytest.mark.skipif(not ctypes.util.find_library("espeak-ng"), reason="libespeak-ng is not installed")
needs_flite = pytest.mark.skipif(not shutil.which("flite"), reason="flite is not installed")


def test_missing_synthesisers_are_named(monkeypatch):
    with pytest.raises(FileNotFoundError, match="apt install libespeak-ng1 flite"):
        Espeak("libnothing-of-the-kind.so")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="flite is not installed; .*apt install"):
        flite("word", "slt")


def test_edges_are_trimmed_and_times_follow_the_rate():
    sound = np.arange(22_050, dtype=np.int16)
    cut = _trimmed(sound, 22_050, [(0, ""), (4410, "ˈa"), (8820, "tː"), (11_025, "(de)"), (11_100, "")])
    assert [name for _, name in cut.phonemes] == ["", "a", "t", ""]
    assert [at for at, _ in cut.phonemes] == [0, 800, 800 + 3200, 800 + 4800]
    assert len(cut.samples) == pytest.approx(800 + 4800 + 800, abs=2)
    assert cut.samples.dtype == np.int16


@pytest.fixture
def shards(tmp_path, monkeypatch):
    monkeypatch.setattr(speech_corpus, "Espeak", Hummer)
    monkeypatch.setattr(speech_corpus, "flite", hum_flite)
    return build(SETTINGS, TEXT, tmp_path)


def test_labels_cover_the_sound(shards):
    assert [file.name for file in shards] == ["shard-000.npz", "shard-001.npz", "heldout.npz"]
    for file in shards:
        shard = Shard(file)
        assert len(shard.rows) == SETTINGS.shard_size
        assert shard.names[0] == ""
        for index in range(len(shard.rows)):
            sound, labels = shard.utterance(index)
            assert len(labels) == -(-len(sound) // LABEL)
            loud = np.abs(sound[: len(sound) // LABEL * LABEL].reshape(-1, LABEL).astype(float)).max(1) > 100
            spoken = labels[: len(loud)] > 0
            assert (loud == spoken).mean() > 0.8, "phonemes are where the sound is"
            assert {shard.names[i] for i in labels} <= {"", *PHONEMES}


def test_shards_are_functions_of_seed_and_number(shards, tmp_path):
    (tmp_path / "again").mkdir()
    again = build(SETTINGS, TEXT, tmp_path / "again")
    for a, b in zip(shards, again, strict=True):
        assert np.array_equal(Shard(a).samples, Shard(b).samples)
        assert Shard(a).rows == Shard(b).rows
    assert Shard(shards[0]).rows != Shard(shards[1]).rows


def test_held_out_voices_and_phrases_are_apart(shards):
    voices = [{row["voice"] for row in Shard(file).rows} for file in shards]
    assert not (voices[0] | voices[1]) & voices[2]
    assert TEXT.heldout[0] not in TEXT.phrases


def test_texts_come_from_the_corpora(tmp_path):
    for i in range(11):
        (tmp_path / f"{i:02d}.txt").write_text("This document tells of the red boat in the harbour. " * 20)
    found = texts([tmp_path], tmp_path)
    assert {"boat", "harbour", "the"} <= set(found.words)
    assert found.phrases
    assert found.heldout
    assert all(3 <= len(phrase.split()) <= 9 for phrase in found.phrases + found.heldout)
    (tmp_path / "poor").mkdir()
    (tmp_path / "poor" / "a.txt").write_text("0123456789 " * 50)
    with pytest.raises(ValueError, match="too little text"):
        texts([tmp_path / "poor"], tmp_path / "poor")


def test_a_failing_program_is_quoted(tmp_path, monkeypatch):
    program = tmp_path / "flite"
    program.write_text("#!/bin/sh\necho no such voice >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ValueError, match="could not read 'seven' with slt: no such voice"):
        flite("seven", "slt")


@needs_espeak
def test_espeak_speaks_with_phonemes():
    espeak = Espeak()
    assert "f3" in espeak.variants()
    slow, fast = (espeak.say("seven", "en-us+f3", speed=speed) for speed in (110, 250))
    assert [name for _, name in slow.phonemes][1:3] == ["s", "ɛ"]
    assert len(slow.samples) > len(fast.samples) > 1600
    assert slow.phonemes[-1][0] <= len(slow.samples)
    assert [at for at, _ in slow.phonemes] == sorted(at for at, _ in slow.phonemes)
    high, low = (espeak.say("seven", "en-us+f3", pitch=pitch).samples for pitch in (95, 5))
    assert not np.array_equal(high, low)
    with pytest.raises(ValueError, match="no voice 'nowhere'"):
        espeak.say("seven", "nowhere")


@needs_flite
def test_flite_speaks_with_the_same_phonemes():
    said = flite("seven", "slt")
    assert [name for _, name in said.phonemes] == ["", "s", "ɛ", "v", "ə", "n", ""]
    assert 0.2 < len(said.samples) / 16_000 < 1
