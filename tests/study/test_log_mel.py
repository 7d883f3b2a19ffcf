"""Log-mel energies against the formula written out with loops, and against transformers."""

import math

import numpy as np
import pytest
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from klnorm_lib.study import log_mel

TONE = np.sin(2 * np.pi * 1000 * np.arange(1200) / 16_000)
NOISE = np.random.default_rng(0).normal(size=1000)


def to_mel(hertz):
    return 2595 * math.log10(1 + hertz / 700)


def by_hand(samples, frame, band):
    """One number, from the definition of the discrete Fourier transform and of a triangle."""
    window = [0.5 * (1 - math.cos(2 * math.pi * n / 400)) for n in range(400)]
    piece = [samples[160 * frame + n] * window[n] for n in range(400)]
    corners = [700 * (10 ** (to_mel(8000) * (band + i) / 65 / 2595) - 1) for i in range(3)]
    energy = 0.0
    for k in range(257):
        f = k * 16_000 / 512
        weight = min((f - corners[0]) / (corners[1] - corners[0]), (corners[2] - f) / (corners[2] - corners[1]))
        if weight > 0:
            energy += weight * abs(sum(p * np.exp(-2j * np.pi * k * n / 512) for n, p in enumerate(piece))) ** 2
    return math.log(max(energy, 1e-10))


@pytest.mark.parametrize(("frame", "band"), [(0, 0), (1, 20), (3, 63)])
def test_log_mel_by_hand(frame, band):
    assert log_mel.log_mel(NOISE)[frame, band] == pytest.approx(by_hand(NOISE, frame, band), rel=1e-9)


def test_filters_are_triangles_of_height_one():
    corners = [700 * (10 ** (to_mel(8000) * i / 65 / 2595) - 1) for i in range(66)]
    rows = [np.interp(np.arange(257) * 31.25, corners[b : b + 3], [0, 1, 0]) for b in range(64)]
    np.testing.assert_allclose(log_mel.mel_filterbank(), rows, atol=1e-12)


def test_log_mel_agrees_with_transformers():
    filters = mel_filter_bank(257, 64, 0.0, 8000.0, 16_000, norm=None, mel_scale="htk")
    theirs = spectrogram(
        NOISE, window_function(400, "hann"), 400, 160, 512, center=False, mel_filters=filters, log_mel="log", power=2.0
    )
    np.testing.assert_allclose(log_mel.log_mel(NOISE), theirs.T, rtol=1e-6)


def test_a_tone_is_loudest_in_its_own_band():
    centres = 700 * (10 ** (np.linspace(0, to_mel(8000), 66)[1:-1] / 2595) - 1)
    assert (log_mel.log_mel(TONE).argmax(1) == np.abs(centres - 1000).argmin()).all()


def test_frames_short_clips_and_silence():
    assert log_mel.log_mel(TONE).shape == (1 + (1200 - 400) // 160, 64)
    assert log_mel.log_mel(TONE[:50]).shape == (1, 64)
    assert (log_mel.log_mel(np.zeros(800)) == math.log(1e-10)).all()
    features = log_mel.clip_features(np.zeros(800))
    assert features.shape == (128,)
    assert (features[64:] == 0).all()


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((2, 100)), np.array([0.0, np.nan])])
def test_bad_samples_are_refused(bad):
    with pytest.raises(ValueError, match="non-empty row of finite samples"):
        log_mel.log_mel(bad)
