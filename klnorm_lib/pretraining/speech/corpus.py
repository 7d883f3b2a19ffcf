"""A synthesised speech corpus in seeded shards: words and phrases of a text corpus, read by many voices.

A shard is a function of (seed, number) and of the texts; shards that exist are not made again. What a shard holds:
int16 sound at 16 kHz, a phoneme label every 10 ms, and for each utterance its word, language, voice and settings.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from klnorm_lib.encoders.corpora import documents
from klnorm_lib.pretraining.speech.synthesis import FLITE_VOICES, SILENCE, Espeak, Utterance, flite

LABEL = 160  # samples a phoneme label stands for: 10 ms
ENGLISH = ("en-us", "en", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc")
_FOREIGN = "de es fr it pt nl sv pl cs ro hu tr fi id sw da nb hr sk et lv ca eu vi"
LANGUAGES = ("en", *_FOREIGN.split(), "ar")
_CONSONANTS, _VOWELS = "بتثجحخدذرزسشصضطظعغفقكلمنهوي", ("َ", "ِ", "ُ", "َا", "ِي", "ُو")
_HELD_OUT = 10  # every tenth voice variant and every tenth document is kept for evaluation
_BLOCK = 25


@dataclass(frozen=True)
class Texts:
    """``words`` in order of frequency, ``phrases`` of three to nine words, ``heldout`` phrases of other documents."""

    words: list[str]
    phrases: list[str]
    heldout: list[str]


def texts(corpora: list[Path], out: Path, limit: int = 40_000) -> Texts:
    """Words and phrases of the corpora, cached in ``out/texts.json``."""
    file = out / "texts.json"
    if not file.exists():
        counts: Counter[str] = Counter()
        phrases: list[list[str]] = [[], []]
        for number, document in enumerate(documents(corpora)):
            body = document[:20_000]
            counts.update(re.findall(r"\b[a-z]{2,12}\b", body))
            for sentence in re.findall(r"[A-Z][a-z ,']{12,160}[.!?]", body)[:40]:
                words = sentence.split()
                width = 3 + (len(words) + number) % 7
                phrases[number % _HELD_OUT == 0].append(" ".join(words[:width]))
        rng = np.random.default_rng(0)
        kept = [[p[i] for i in np.sort(rng.permutation(len(p))[:limit])] for p in phrases]
        words = [word for word, count in counts.most_common(20_000) if count > 2 and re.search("[aeiouy]", word)]
        if not words or not all(kept):
            raise ValueError("too little text for words and phrases; add corpora (ten documents or more)")
        part = file.with_suffix(".part")
        part.write_text(json.dumps({"words": words, "phrases": kept[0], "heldout": kept[1]}))
        os.replace(part, file)
    return Texts(**json.loads(file.read_text()))


class Shard:
    """One shard in memory; ``rows`` has a dictionary for each utterance, ``names`` the phonemes that labels count."""

    def __init__(self, file: Path) -> None:
        try:
            with np.load(file) as data:
                self.samples, self.labels = data["samples"], data["labels"]
                about = json.loads(str(data["about"]))
        except Exception as error:
            raise ValueError(f"shard {file} is corrupt or truncated ({error}); delete it and start again") from error
        self.names, self.rows = about["names"], about["rows"]

    def utterance(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples (int16) and labels (one for 160 samples) of one row."""
        row = self.rows[index]
        at, size = row["start"], row["size"]
        first = row["first_label"]
        return self.samples[at : at + size], self.labels[first : first + -(-size // LABEL)]


def build(config, text: Texts, out: Path, progress=None) -> list[Path]:
    """Files of all shards, the last one being held out (its voices and phrases are in no other); makes those missing.

    ``config``: ``seed``, ``shards``, ``shard_size``, ``vocabulary`` (most frequent words, which are classes),
    ``word_fraction``, ``flite_fraction``, as in ``SpeechPretrainConfig``.
    """
    files = [out / f"shard-{number:03d}.npz" for number in range(config.shards)] + [out / "heldout.npz"]
    espeak = None
    for number, file in enumerate(files):
        if not file.exists():
            espeak = espeak or Espeak()
            _write(file, *_shard(config, text, number, espeak, heldout=file.stem == "heldout"))
        if progress:
            progress(number + 1)
    return files


def _shard(config, text: Texts, number: int, espeak, heldout: bool) -> tuple[list[dict], list[Utterance]]:
    rng = np.random.default_rng([config.seed, number])
    variants = list(enumerate(espeak.variants()))
    variants = [v for v in variants if (v[0] % _HELD_OUT == _HELD_OUT - 1) == heldout] or variants
    rows, sounds = [], []
    while len(rows) < config.shard_size:
        if len(rows) % _BLOCK == 0:  # a change of language costs the synthesiser more than an utterance
            language = _language(rng)
        row, sound = _one(config, text, rng, espeak, variants, heldout, *language)
        if 0.1 * 16_000 < len(sound.samples) < 8 * 16_000 and np.abs(sound.samples).max() > 100:
            rows.append(row)
            sounds.append(sound)
    return rows, sounds


def _language(rng) -> tuple[int, str]:
    number = 0 if rng.random() < 0.55 else int(rng.integers(1, len(LANGUAGES)))
    return number, ENGLISH[int(rng.integers(len(ENGLISH)))] if number == 0 else LANGUAGES[number]


def _one(config, text: Texts, rng, espeak, variants, heldout: bool, language, name) -> tuple[dict, Utterance]:
    row: dict = {"word": -1}
    single = rng.random() < config.word_fraction
    classes = min(config.vocabulary, len(text.words))
    if single:
        known = rng.random() < 0.75
        index = int(rng.integers(classes) if known else rng.integers(len(text.words)))
        said = text.words[index]
        row["word"] = index if index < classes else -1
    else:
        pool = text.heldout if heldout else text.phrases
        said = pool[int(rng.integers(len(pool)))]
    if not heldout and rng.random() < config.flite_fraction:
        voice = int(rng.integers(len(FLITE_VOICES)))
        stretch, pitch = float(rng.uniform(0.7, 1.3)), float(rng.uniform(80, 220))
        row |= {
            "language": 0,
            "voice": voice,
            "speed": 1 / stretch,
            "pitch": pitch / 220,
            "range": -1.0,
            "single": single,
        }
        return row, flite(said, FLITE_VOICES[voice], round(stretch, 3), round(pitch, 1))
    if language:
        row["word"] = -1  # the letters are read by other rules: another word
    if name == "ar":
        said = " ".join(_syllables(rng) for _ in range(1 if single else 4))
    number, variant = variants[int(rng.integers(len(variants)))]
    speed, pitch, spread = int(rng.integers(110, 260)), int(rng.integers(10, 91)), int(rng.integers(15, 100))
    row |= {"language": language, "voice": len(FLITE_VOICES) + number, "single": single}
    row |= {"speed": speed / 175, "pitch": pitch / 50, "range": spread / 50}
    return row, espeak.say(said, f"{name}+{variant}", speed, pitch, spread)


def _syllables(rng) -> str:
    """An invented word in vowelled Arabic script, for the consonants that Latin-script languages lack."""
    pieces = []
    for _ in range(int(rng.integers(1, 4))):
        pieces += [_CONSONANTS[int(rng.integers(len(_CONSONANTS)))], _VOWELS[int(rng.integers(len(_VOWELS)))]]
        if rng.random() < 0.4:
            pieces += [_CONSONANTS[int(rng.integers(len(_CONSONANTS)))], "ْ"]
    return "".join(pieces)


def _write(file: Path, rows: list[dict], sounds: list[Utterance]) -> None:
    names: dict[str, int] = {SILENCE: 0}
    labels = []
    start = first = 0
    for row, sound in zip(rows, sounds, strict=True):
        line = np.zeros(-(-len(sound.samples) // LABEL), np.int16)
        for at, name in sound.phonemes:
            line[(at + LABEL // 2) // LABEL :] = names.setdefault(name, len(names))
        labels.append(line)
        row |= {"start": start, "size": len(sound.samples), "first_label": first}
        start, first = start + len(sound.samples), first + len(line)
    about = json.dumps({"names": list(names), "rows": rows})
    part = file.with_suffix(".part")
    with part.open("wb") as handle:
        np.savez(
            handle, samples=np.concatenate([s.samples for s in sounds]), labels=np.concatenate(labels), about=about
        )
    os.replace(part, file)
