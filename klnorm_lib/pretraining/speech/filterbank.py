"""The filters that the first convolution starts from, and the statistics of sound that the pretraining predicts.

Filters: Gabor functions in four phases, g(t) = exp(-t² / 2s²) cos(2 pi f t + phase), centre frequencies f evenly
spaced in mel, bandwidths their spacing; so the encoder begins as a spectrogram and not as noise (compare Zeghidour
et al. 2018, Learning filterbanks from raw speech).
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

RATE = 16_000
PHASES = 4
BANDS = 40


def mel_centres(bands: int, low: float = 60.0, high: float = 7600.0) -> np.ndarray:
    """Centre frequencies in Hz, evenly spaced on the mel scale 2595 log10(1 + f / 700)."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (low, high))
    return 700 * (10 ** (np.linspace(low, high, bands) / 2595) - 1)


@torch.no_grad()
def warm_start(convolution: torch.nn.Conv1d, reference: float = 0.3) -> int:
    """Fill a first convolution (channels, 1, kernel) with filters; returns the number of bands, channels // 4 - 1.

    The four channels left over hear nothing; the first has the constant ``reference`` as its bias: layer norm takes
    the loudness of a frame away, and this channel tells it.
    """
    channels, _, kernel = convolution.weight.shape
    bands = channels // PHASES - 1
    if bands < 2 or convolution.bias is None:
        raise ValueError(f"the first convolution needs 12 channels or more and a bias; it has {channels} channels")
    centres = mel_centres(bands)
    spacing = np.gradient(centres)
    time = (np.arange(kernel) - (kernel - 1) / 2) / RATE
    widths = np.clip(1 / (2 * math.pi * spacing), 0.0016, kernel / RATE / 5)
    convolution.weight.zero_()
    convolution.bias.zero_()
    for band, (centre, width) in enumerate(zip(centres, widths, strict=True)):
        for phase in range(PHASES):
            wave = np.exp(-0.5 * (time / width) ** 2) * np.cos(2 * math.pi * centre * time + phase * math.pi / 2)
            wave *= math.sqrt(centre / 1000) / np.linalg.norm(wave)  # speech is louder at low frequencies
            convolution.weight[PHASES * band + phase, 0] = torch.from_numpy(wave)
    convolution.bias[PHASES * bands] = reference
    return bands


@torch.no_grad()
def envelopes(convolution: torch.nn.Conv1d, bands: int) -> None:
    """Let the first ``bands`` channels of the second convolution start as the envelope of one band each."""
    convolution.weight[:bands] = 0
    for band in range(bands):
        convolution.weight[band, PHASES * band : PHASES * (band + 1)] = 2 / convolution.weight.shape[2]


@functools.cache
def _mel_matrix(size: int) -> Tensor:
    edges = mel_centres(BANDS + 2, 20.0)
    bins = np.arange(size // 2 + 1) * RATE / size
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.from_numpy(np.maximum(0, np.minimum(rise, fall)).T).float()


@torch.no_grad()
def statistics(sound: Tensor, lengths: Tensor) -> Tensor:
    """What the pooled vector has to tell of a clip: (batch, 5 x 40 + 16) from ``sound`` (batch, samples).

    Log-mel energies (40 bands, 25 ms windows every 10 ms): mean and standard deviation over time, standard deviation
    of their differences, means of the first and of the last third; of the mean energy its 10, 50 and 90 %
    quantiles and its modulation at 4 lags; of pitch (autocorrelation peak, 60 to 400 Hz, voiced frames weighted)
    mean, spread, range and voicing; spectral flux; length.
    """
    window, hop = 512, 160
    frames = torch.nn.functional.pad(sound, (0, window)).unfold(1, window, hop)
    count = (lengths // hop).clamp(min=3)
    frames = frames[:, : int(count.max())]
    power = torch.fft.rfft(frames * torch.hann_window(window)).abs().square()
    mel = torch.log(power @ _mel_matrix(window) + 1e-3)
    mask = (torch.arange(mel.shape[1]) < count[:, None]).float()
    total = count[:, None].float()

    def mean(x: Tensor, weight: Tensor) -> Tensor:
        return (x * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp(min=1e-3)

    def spread(x: Tensor, weight: Tensor) -> Tensor:
        return mean((x - mean(x, weight)[:, None]).square(), weight).clamp(min=1e-6).sqrt()

    place = torch.arange(mel.shape[1]) / total
    thirds = [mean(mel, mask * (place < 1 / 3)), mean(mel, mask * (place >= 2 / 3))]
    delta = torch.nn.functional.pad(mel[:, 1:] - mel[:, :-1], (0, 0, 0, 1))
    inner = mask * torch.nn.functional.pad(mask[:, 1:], (0, 1))
    energy = mel.mean(-1)
    ordered = torch.where(mask > 0, energy, torch.inf).sort(1).values
    quantiles = [ordered.gather(1, (total * q).long()) for q in (0.1, 0.5, 0.9)]
    centred = (energy - mean(energy[..., None], mask)) * mask
    scale = centred.square().sum(1, keepdim=True) + 1e-3
    lags = [(centred[:, k:] * centred[:, :-k]).sum(1, keepdim=True) / scale if k < centred.shape[1] else 0 * scale
            for k in (4, 8, 16, 32)]  # fmt: skip
    height, pitch = _pitch(power)
    voiced = mask * height.clamp(min=0) ** 2 + 1e-4
    tones = [mean(pitch[..., None], voiced), spread(pitch[..., None], voiced), mean(height[..., None], mask),
             spread(height[..., None], mask), mean((height > 0.5).float()[..., None], mask),
             mean((pitch[:, 1:] - pitch[:, :-1]).abs()[..., None], voiced[:, 1:])]  # fmt: skip
    other = [mean(delta.abs().mean(-1, keepdim=True), inner), total.log(), spread(energy[..., None], mask)]
    return torch.cat(
        [mean(mel, mask), spread(mel, mask), spread(delta, inner), *thirds, *quantiles, *lags, *tones, *other], 1
    )


def _pitch(power: Tensor) -> tuple[Tensor, Tensor]:
    """Height of the autocorrelation peak (0 to 1) and log2 of its frequency over 100 Hz, for each frame."""
    correlation = torch.fft.irfft(power)[..., : RATE // 60 + 1]
    correlation = correlation / (correlation[..., :1] + 1e-3)
    taper = torch.hann_window(512)
    own = torch.fft.irfft(torch.fft.rfft(taper, 1024).abs().square())[: correlation.shape[-1]]
    correlation = correlation / (own / own[0]).clamp(min=0.2)
    low = RATE // 400
    height, at = correlation[..., low:].max(-1)
    return height.clamp(max=1), torch.log2(RATE / (at + low).float() / 100)
