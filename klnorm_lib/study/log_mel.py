"""Log-mel features of a clip: what a listener's ear does before any learning, in a few lines of numpy."""

from __future__ import annotations

import numpy as np

RATE, WINDOW, HOP, BANDS, FFT = 16_000, 400, 160, 64, 512  # Hz; 25 ms and 10 ms in samples; bands; points
FLOOR = 1e-10  # of a band's energy, so that digital silence has a logarithm


def mel_filterbank() -> np.ndarray:
    """Triangular filters (64 bands, 257 frequencies) of height 1, evenly spaced in mel from 0 to 8 kHz.

    Those of ``transformers.audio_utils.mel_filter_bank``, in the form of HTK.
    """
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(FFT // 2 + 1, BANDS, 0.0, RATE / 2, RATE, norm=None, mel_scale="htk")
    return np.ascontiguousarray(filters.T)  # recorded numbers were made with this layout, which decides the last bit


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
