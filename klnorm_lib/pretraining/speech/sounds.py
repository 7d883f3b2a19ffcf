"""Sounds that are not speech, drawn from a generator, with the parameters they were made from.

They stand for what environmental recordings have and speech has not: steady noises, ticks, hums, bursts, sweeps.
"""

from __future__ import annotations

import numpy as np

from klnorm_lib.pretraining.speech.augment import RATE, coloured_noise

KINDS = ("noise", "swell", "clicks", "ticks", "grains", "engine", "tones", "sweep", "bursts", "cries")
PARAMETERS = 3


def sound(size: int, rng: np.random.Generator) -> tuple[np.ndarray, int, np.ndarray]:
    """``(samples, kind, parameters)``: float32 of ``size``, an index into ``KINDS``, and rate, pitch and colour.

    Parameters are standardised logarithms: of events or turns a second, of a pitch in Hz, and of a decay in seconds.
    """
    kind = int(rng.integers(len(KINDS)))
    z = rng.uniform(-1.7, 1.7, PARAMETERS).astype(np.float32)
    rate, pitch, decay = 2 ** (1.5 + z[0] * 1.1), 2 ** (8.5 + z[1] * 1.1), 10 ** (-1.6 + z[2] * 0.45)
    time = np.arange(size) / RATE
    made = globals()[f"_{KINDS[kind]}"](size, time, rate, pitch, decay, rng)
    return made.astype(np.float32), kind, z


def _noise(size, time, rate, pitch, decay, rng):
    return _band(coloured_noise(size, rng), pitch * 3, rng.uniform(0.5, 3))


def _swell(size, time, rate, pitch, decay, rng):
    level = 1 + np.sin(2 * np.pi * (rate / 6 * time + rng.random()))
    return _band(coloured_noise(size, rng), pitch * 3, 2.0) * level ** rng.uniform(1, 3)


def _clicks(size, time, rate, pitch, decay, rng):
    at = rng.random(max(1, rng.poisson(rate * 4 * time[-1]))) * size
    return _ring(at, size, pitch * 5, decay / 5, rng)


def _ticks(size, time, rate, pitch, decay, rng):
    gap = RATE / rate
    at = np.arange(rng.random() * gap, size, gap) + rng.normal(0, 0.004 * RATE)
    return _ring(at, size, pitch * 4, decay / 3, rng)


def _grains(size, time, rate, pitch, decay, rng):
    at = rng.random(int(rate * 60 * time[-1]) + 1) * size
    return _ring(at, size, pitch * 6, decay / 10, rng) + 0.2 * coloured_noise(size, rng)


def _engine(size, time, rate, pitch, decay, rng):
    turns = np.cumsum(pitch / 8 * (1 + 0.05 * np.sin(2 * np.pi * rate * time))) / RATE
    pulses = np.exp(-((turns % 1) / rng.uniform(0.05, 0.4)))
    return pulses - pulses.mean() + rng.uniform(0, 0.5) * coloured_noise(size, rng) * (1 + pulses)


def _tones(size, time, rate, pitch, decay, rng):
    harmonics = np.arange(1, int(rng.integers(2, 16)))
    level = harmonics ** -rng.uniform(0.3, 2) * rng.random(len(harmonics))
    wobble = np.cumsum(1 + rng.uniform(0, 0.03) * np.sin(2 * np.pi * rate * time)) / RATE
    return np.sin(2 * np.pi * pitch * np.outer(harmonics, wobble)).T @ level


def _sweep(size, time, rate, pitch, decay, rng):
    bend = 2 ** (rng.uniform(-2, 2) * ((time * rate / 3) % 1))
    phase = 2 * np.pi * np.cumsum(pitch * 2 * bend) / RATE
    return np.sin(phase) + rng.random() * np.sin(2 * phase)


def _bursts(size, time, rate, pitch, decay, rng):
    at = np.sort(rng.random(max(1, rng.poisson(rate / 2 * time[-1]))) * size)
    return _envelope(at, size, decay * 4) * _band(coloured_noise(size, rng), pitch * 4, 1.0)


def _cries(size, time, rate, pitch, decay, rng):
    gap = RATE / rate * 2
    at = np.arange(rng.random() * gap, size, gap)
    shape = _envelope(at, size, max(decay * 4, 0.08))
    phase = 2 * np.pi * np.cumsum(pitch * 1.3 * (1 + rng.uniform(-0.4, 0.4) * shape)) / RATE
    level = np.arange(1, 12) ** -rng.uniform(0.2, 1.5)
    voiced = sum(a * np.sin((k + 1) * phase) for k, a in enumerate(level))
    return shape * (voiced + rng.uniform(0, 1) * coloured_noise(size, rng))


def _envelope(at, size: int, decay: float) -> np.ndarray:
    """Rises of 10 ms at the places ``at``, each falling within ``decay`` seconds."""
    out = np.zeros(size)
    length = min(size, int(6 * decay * RATE) + 160)
    shape = np.minimum(1, np.arange(length) / 160) * np.exp(-np.arange(length) / (decay * RATE))
    for start in at.astype(int):
        if 0 <= start < size:
            out[start : start + length] += shape[: size - start]
    return out


def _ring(at, size: int, pitch: float, decay: float, rng) -> np.ndarray:
    """Struck resonances of one pitch at the places ``at``, loudness varying."""
    hits = np.zeros(size)
    places = at.astype(int)
    places = places[(places >= 0) & (places < size)]
    hits[places] = rng.lognormal(0, 0.5, len(places))
    time = np.arange(min(size, int(6 * decay * RATE) + 32)) / RATE
    body = np.exp(-time / decay) * (np.sin(2 * np.pi * min(pitch, 7000) * time) + 0.5 * rng.standard_normal(len(time)))
    length = 1 << int(np.ceil(np.log2(size + len(body))))
    return np.fft.irfft(np.fft.rfft(hits, length) * np.fft.rfft(body, length), length)[:size]


def _band(noise: np.ndarray, centre: float, octaves: float) -> np.ndarray:
    """``noise`` through a bell of so many octaves around ``centre`` Hz."""
    frequency = np.arange(len(noise) // 2 + 1) * RATE / len(noise) + 1
    gain = np.exp(-0.5 * (np.log2(frequency / min(centre, 6000)) / octaves) ** 2)
    return np.fft.irfft(np.fft.rfft(noise) * gain, len(noise))
