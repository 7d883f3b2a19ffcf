"""Log-mel features of a clip: what a listener's ear does before any learning, in a few lines of numpy."""

from __future__ import annotations

import numpy as np

RATE, WINDOW, HOP, BANDS, FFT = 16_000, 400, 160, 64, 512  # Hz; 25 ms and 10 ms in samples; bands; points
FLOOR = 1e-10  # of a band's energy, so that digital silence has a logarithm


def mel(hertz: np.ndarray) -> np.ndarray:
    r"""Pitch in mel, :math:`2595\,\log_{10}(1 + f/700)` (O'Shaughnessy 1987, the form of HTK)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hertz, dtype=np.float64) / 700.0)


def mel_filterbank(bands: int = BANDS, points: int = FFT, rate: int = RATE) -> np.ndarray:
    r"""Triangular filters (bands, points/2 + 1), their corners evenly spaced in mel from 0 Hz to half the rate.

    .. math:: w_b(f) = \max\Bigl(0, \min\bigl(\tfrac{f - c_{b-1}}{c_b - c_{b-1}},
        \tfrac{c_{b+1} - f}{c_{b+1} - c_b}\bigr)\Bigr)

    Each filter has height 1. Raises ``ValueError`` when a filter is so narrow that no frequency falls into it.
    """
    corners = 700.0 * (10.0 ** (np.linspace(0.0, mel(rate / 2), bands + 2) / 2595.0) - 1.0)
    frequencies = np.arange(points // 2 + 1) * rate / points
    low, centre, high = (corners[i : i + bands, None] for i in range(3))
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    filters = np.clip(np.minimum(rising, falling), 0.0, None)
    if not filters.any(1).all():
        raise ValueError(f"{bands} bands are too many for {points} points at {rate} Hz: some hold no frequency")
    return filters


def log_mel(samples: np.ndarray) -> np.ndarray:
    r"""Log energies (frames, 64) of a clip's mel bands, 25 ms Hann windows every 10 ms.

    .. math:: x_{tb} = \ln\max\Bigl(\epsilon, \sum_f w_b(f)\,|\mathrm{FFT}(h \cdot s_t)(f)|^2\Bigr),
        \quad \epsilon = 10^{-10}

    Shape: ``samples`` (n,), mono at 16 kHz; frames = 1 + (n - 400) // 160, a clip below one window being padded with
    zeros to one. Raises ``ValueError`` for samples that are not one finite, non-empty row.
    """
    samples = np.asarray(samples, dtype=np.float64)
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise ValueError(f"log_mel takes one non-empty row of finite samples, got shape {samples.shape}")
    samples = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * window, FFT)) ** 2
    return np.log(np.maximum(power @ mel_filterbank().T, FLOOR))


def clip_features(samples: np.ndarray) -> np.ndarray:
    """Mean and standard deviation over time of :func:`log_mel`, 128 numbers a clip."""
    energies = log_mel(samples)
    return np.concatenate([energies.mean(0), energies.std(0)])
