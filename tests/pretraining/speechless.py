"""A stand-in for the synthesisers: each phoneme is a tone of its own, so that tests need no installed program."""

import numpy as np

from klnorm_lib.pretraining.speech.synthesis import Utterance

PHONEMES = tuple("abdeiklmnoprstuvz")


class Hummer:
    """Speaks like ``Espeak``, from the letters of the text."""

    calls = 0

    def variants(self):
        return [f"voice{i}" for i in range(20)]

    def say(self, text, voice, speed=175, pitch=50, pitch_range=50):
        type(self).calls += 1
        return hum(text, 1 + 0.004 * pitch)


def hum_flite(text, voice, stretch, pitch):
    """The stand-in for ``flite``."""
    Hummer.calls += 1
    return hum(text, pitch / 120)


def hum(text, pitch=1.0):
    """Tones of 60 ms with 20 ms of silence at both ends."""
    time = np.arange(960) / 16_000
    sounds, phonemes = [np.zeros(320)], [(0, "")]
    for letter in text.lower():
        if letter in PHONEMES:
            phonemes.append((sum(map(len, sounds)), letter))
            frequency = 250 * 2 ** (PHONEMES.index(letter) / 4) * pitch
            sounds.append(8000 * np.sin(2 * np.pi * frequency * time))
    phonemes.append((sum(map(len, sounds)), ""))
    sounds.append(np.zeros(320))
    return Utterance(np.concatenate(sounds).astype(np.int16), tuple(phonemes))
