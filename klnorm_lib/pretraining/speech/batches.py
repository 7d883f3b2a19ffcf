"""Batches of augmented speech and made-up sounds; each is a function of (seed, step) and of the shards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from klnorm_lib.pretraining.speech import sounds as speech_sounds
from klnorm_lib.pretraining.speech.augment import RATE, augment, channel, coloured_noise, standardise
from klnorm_lib.pretraining.speech.corpus import LABEL, LANGUAGES, Shard
from klnorm_lib.pretraining.speech.filterbank import statistics
from klnorm_lib.pretraining.speech.losses import IGNORE, Batch

PROSODY = ("speed", "pitch", "range")


class Batches:
    """All utterances of the shards, and what is to be predicted of them.

    ``geometry``: (samples a frame, receptive field of a frame) of the encoder, to give each frame its phoneme.
    Two batches in three are single words, one is cuts of phrases with made-up sounds among them.
    """

    def __init__(self, files: list[Path], config, geometry: tuple[int, int], phonemes: list[str] | None = None) -> None:
        self.config, (self.hop, self.field) = config, geometry
        self.shards = [Shard(file) for file in files]
        self.phonemes = phonemes or self._inventory()
        index = {name: i for i, name in enumerate(self.phonemes)}
        self.maps = [np.array([index.get(name, IGNORE) for name in shard.names]) for shard in self.shards]
        every = [(s, i) for s, shard in enumerate(self.shards) for i in range(len(shard.rows))]
        self.words = np.array([p for p in every if self.row(p)["single"]]).reshape(-1, 2)
        self.phrases = np.array([p for p in every if not self.row(p)["single"]]).reshape(-1, 2)
        if not len(self.words) or not len(self.phrases):
            raise ValueError("the shards need single words and phrases; raise shard_size or mend word_fraction")
        voices = 1 + max(self.row(p)["voice"] for p in every)
        self.classes = {
            "voice": voices, "language": len(LANGUAGES), "sound": 1 + len(speech_sounds.KINDS),
        }  # fmt: skip
        self.numbers = {"prosody": len(PROSODY), "making": speech_sounds.PARAMETERS}

    def row(self, place) -> dict:
        """What is known of the utterance ``(shard, index)``."""
        return self.shards[place[0]].rows[place[1]]

    def seconds(self) -> float:
        """Seconds of synthesised sound in the shards."""
        return sum(len(shard.samples) for shard in self.shards) / RATE

    def count(self, name: str) -> int:
        """How many values the utterances have of ``voice`` or ``language``."""
        return len({row[name] for shard in self.shards for row in shard.rows})

    def _inventory(self) -> list[str]:
        """Phonemes by frequency of their frames: those with one frame in 5,000, silence first."""
        counts: Counter[str] = Counter()
        for shard in self.shards:
            counts.update(
                dict(zip(shard.names, np.bincount(shard.labels, minlength=len(shard.names)).tolist(), strict=True))
            )
        total = sum(counts.values())
        return ["", *(name for name, count in counts.most_common() if name and count > total / 5000)]

    def calibrate(self, batches: int = 6) -> torch.Tensor:
        """Mean and standard deviation (2, n) of the statistics of sound, from the first batches."""
        seen = torch.cat([self._raw(step)[1] for step in range(3 * batches)])
        return torch.stack([seen.mean(0), seen.std(0).clamp(min=0.05)])

    def batch(self, step: int, scale: torch.Tensor) -> Batch:
        """The batch of one step; ``scale`` from :meth:`calibrate`."""
        batch, raw = self._raw(step)
        batch.numbers["statistics"] = ((raw - scale[0]) / scale[1]).clamp(-5, 5)
        return batch

    def _raw(self, step: int) -> tuple[Batch, torch.Tensor]:
        rng = np.random.default_rng([self.config.seed, 1, step])
        words = step % 3 < 2
        size, longest = (self.config.batch_size, 1.3) if words else (self.config.batch_size * 5 // 12, 3.2)
        pool = self.words if words else self.phrases
        rows = [self._speech(pool, rng, int(longest * RATE)) if words or rng.random() > self.config.sound_fraction
                else self._sound(rng) for _ in range(size)]  # fmt: skip
        return self._collate(rows)

    def _speech(self, pool, rng, longest: int) -> dict:
        place = pool[int(rng.integers(len(pool)))]
        row = self.row(place)
        sound, labels = self.shards[place[0]].utterance(place[1])
        labels = self.maps[place[0]][labels]
        other = self.phrases[int(rng.integers(len(self.phrases)))]
        babble = self.shards[other[0]].utterance(other[1])[0]
        sound, moved = augment(sound, labels, rng, longest, babble)
        prosody = [row["speed"] - 1.05, row["pitch"] - 1, row["range"] - 1.1] if row["range"] >= 0 else [np.nan] * 3
        return {
            "sound": sound, "labels": moved, "voice": row["voice"], "language": row["language"], "kind": 0,
            "single": row["single"], "prosody": np.array(prosody) * 2,
            "making": np.full(speech_sounds.PARAMETERS, np.nan),
        }  # fmt: skip

    def _sound(self, rng) -> dict:
        size = int(rng.uniform(0.8, 3.2) * RATE)
        made, kind, parameters = speech_sounds.sound(size, rng)
        made = channel(standardise(made), rng)
        noise = coloured_noise(size, rng)
        made = made / (made.std() + 1e-5) + noise / (noise.std() + 1e-5) * 10 ** (-rng.uniform(3, 45) / 20)
        return {
            "sound": standardise(made), "labels": None, "voice": IGNORE, "language": IGNORE, "kind": 1 + kind,
            "single": False, "prosody": np.full(3, np.nan), "making": parameters,
        }  # fmt: skip

    def _collate(self, rows: list[dict]) -> tuple[Batch, torch.Tensor]:
        lengths = torch.tensor([len(row["sound"]) for row in rows])
        sound = torch.zeros(len(rows), int(lengths.max()))
        frames = torch.full((len(rows), (sound.shape[1] - self.field) // self.hop + 1), IGNORE)
        bag = torch.full((len(rows), 4, len(self.phonemes)), -1.0)
        at = (np.arange(frames.shape[1]) * self.hop + self.field // 2) // LABEL
        for i, row in enumerate(rows):
            sound[i, : lengths[i]] = torch.from_numpy(row["sound"])
            labels = row["labels"]
            if labels is not None:
                inside = at < len(labels)
                frames[i, : inside.sum()] = torch.from_numpy(labels[at[inside]].astype(np.int64))
                self._fill(bag[i], labels, row["single"])

        def column(name):
            return torch.tensor([int(row[name]) for row in rows])

        classes = {name: column(name) for name in ("voice", "language")}
        classes["sound"] = column("kind")
        numbers = {
            n: torch.tensor(np.array([row[n] for row in rows]), dtype=torch.float32) for n in ("prosody", "making")
        }
        return Batch(sound, lengths, frames, bag, classes, numbers), statistics(sound, lengths)

    @staticmethod
    def _fill(bag: torch.Tensor, labels: np.ndarray, single: bool) -> None:
        """Phonemes that occur in the clip and, for a single word, in each third of what is spoken of it."""
        bag[0] = 0
        bag[0, np.unique(labels[labels >= 0])] = 1
        spoken = np.flatnonzero(labels != 0)
        if single and len(spoken) >= 3:
            thirds = np.array_split(labels[spoken[0] : spoken[-1] + 1], 3)
            for third, part in enumerate(thirds):
                bag[1 + third] = 0
                bag[1 + third, np.unique(part[part >= 0])] = 1
