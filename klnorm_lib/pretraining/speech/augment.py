"""Make synthesised speech less clean: rates, rooms, channels, noises; everything drawn from one generator.

What synthesised speech lacks decides how much of what is learnt from it holds for recordings.
"""

from __future__ import annotations

import numpy as np

RATE = 16_000
LABEL = 160


def augment(sound: np.ndarray, labels: np.ndarray, rng: np.random.Generator, longest: int, babble=None):
    """``(sound, labels)`` of one clip, changed: float32 of at most ``longest`` samples, zero mean and unit variance.

    ``sound``: samples of any scale; ``labels``: one for 160 samples, 0 where there is silence. Tempo and pitch change
    together by resampling; silence is added or edges are cut; then room, channel, noise, level.
    ``babble``: other speech to hear in the background, or None.
    """
    sound = np.asarray(sound, np.float32) / (np.abs(sound).max() + 1e-3)
    factor = 2 ** rng.uniform(-0.3, 0.3)
    margins = rng.exponential(0.12, 2) * (rng.random(2) < 0.7) - 0.04 * (rng.random(2) < 0.2)
    before, after = (np.clip(margins, -0.04, 0.6) * RATE).astype(int)
    size = max(RATE // 8, int(len(sound) / factor) + before + after)
    start = 0
    if size > longest:
        start = int(rng.integers(size - longest + 1))
        size = longest
    place = (np.arange(size) + start - before) * factor
    inside = np.interp(place, np.arange(len(sound)), sound, left=0, right=0).astype(np.float32)
    middle = ((np.arange(-(-size // LABEL)) + 0.5) * LABEL + start - before) * factor / LABEL
    moved = np.where((middle >= 0) & (middle < len(labels)), labels[np.clip(middle, 0, len(labels) - 1).astype(int)], 0)
    out = channel(inside, rng)
    if rng.random() < 0.1:
        out = np.tanh(out / (out.std() + 1e-4) * rng.uniform(0.3, 2))
    out = out / (out.std() + 1e-5)
    if rng.random() < 0.85:
        noise = coloured_noise(size, rng)
        if babble is not None and rng.random() < 0.2:
            at = int(rng.integers(max(1, len(babble) - size)))
            noise = np.resize(babble[at : at + size], size).astype(np.float32)
        out = out + noise / (noise.std() + 1e-5) * 10 ** (-rng.uniform(3, 45) / 20)
    if rng.random() < 0.1:
        hum = sum(rng.random() * np.sin(2 * np.pi * k * 50 * np.arange(size) / RATE) for k in range(1, 5))
        out = out + hum * 10 ** (-rng.uniform(10, 35) / 20)
    if rng.random() < 0.1:
        out[rng.integers(size, size=int(rng.integers(1, 8)))] += rng.normal(0, 3)
    if rng.random() < 0.08:
        step = np.abs(out).max() / 2 ** rng.uniform(3, 7)
        out = np.round(out / step) * step
    return standardise(out), moved


def standardise(sound: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance, as the feature extractor of Wav2Vec2 does."""
    return ((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)).astype(np.float32)


def channel(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth random frequency response, sometimes a band limit, sometimes a room; length unchanged."""
    room = rng.random() < 0.35
    size = 1 << int(np.ceil(np.log2(len(sound) + (4800 if room else 0))))
    spectrum = np.fft.rfft(sound, size) * response(size, rng)
    if room:
        tail = int(rng.uniform(0.03, 0.3) * RATE)
        decay = rng.normal(size=tail) * np.exp(-6.9 * np.arange(tail) / tail) * rng.uniform(0.02, 0.25)
        decay[0] = 1.0
        spectrum = spectrum * np.fft.rfft(decay, size)
    return np.fft.irfft(spectrum, size)[: len(sound)].astype(np.float32)


def response(size: int, rng: np.random.Generator) -> np.ndarray:
    """Gains of the bins of an rfft of ``size``: some dB of colour, and edges as of telephones and cheap microphones."""
    frequency = np.arange(size // 2 + 1) * RATE / size
    nodes = np.log2([50, 150, 400, 1000, 2500, 5000, 8000])
    decibel = np.interp(np.log2(frequency + 1), nodes, rng.normal(0, 4, len(nodes)))
    if rng.random() < 0.4:
        edge = rng.uniform(3000, 7000) if rng.random() < 0.6 else 4000
        decibel -= np.clip((frequency - edge) / edge * 400, 0, 70)
    if rng.random() < 0.4:
        edge = rng.uniform(60, 350)
        decibel -= np.clip((edge - frequency) / edge * 40, 0, 40)
    return 10 ** (decibel / 20)


def coloured_noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise with a power law between white and brown, a random response and slow changes of level."""
    length = 1 << int(np.ceil(np.log2(size)))
    spectrum = np.fft.rfft(rng.standard_normal(length, np.float32))
    spectrum *= (np.arange(length // 2 + 1) + 5.0) ** -rng.uniform(0, 1) * response(length, rng)
    noise = np.fft.irfft(spectrum, length)[:size]
    if rng.random() < 0.4:
        nodes = np.linspace(0, size, max(3, size // 4000))
        noise *= np.exp(np.interp(np.arange(size), nodes, rng.normal(0, 0.7, len(nodes))))
    return noise.astype(np.float32)
