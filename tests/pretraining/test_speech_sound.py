"""Filters, statistics, augmentation and made-up sounds."""

import numpy as np
import pytest
import torch

from klnorm_lib.pretraining.speech import sounds as speech_sounds
from klnorm_lib.pretraining.speech.augment import augment, channel, coloured_noise, standardise
from klnorm_lib.pretraining.speech.filterbank import BANDS, PHASES, envelopes, mel_centres, statistics, warm_start


def tone(frequency, seconds=0.5):
    return torch.sin(2 * torch.pi * frequency * torch.arange(int(16_000 * seconds)) / 16_000).float()


@torch.no_grad()
def test_filters_respond_at_their_centres():
    convolution = torch.nn.Conv1d(1, 64, 320, 80)
    bands = warm_start(convolution, reference=0.3)
    assert bands == 15
    centres = mel_centres(bands)
    for band, centre in enumerate(centres):
        answer = convolution(tone(1.003 * centre)[None, None])[0, : PHASES * bands].square().mean(-1)
        energy = answer.view(bands, PHASES).sum(1) / torch.from_numpy(centres).float()  # the tilt taken out
        assert energy.argmax().item() == band
        assert answer.view(bands, PHASES)[band].min() > 0.5 * answer.view(bands, PHASES)[band].mean(), "in all phases"
    silence = convolution(torch.zeros(1, 1, 400))
    assert silence[0, PHASES * bands, 0].item() == pytest.approx(0.3)
    assert silence.abs().sum() == pytest.approx(silence[0, PHASES * bands].sum())


@torch.no_grad()
def test_the_second_convolution_starts_as_envelopes():
    first, second = torch.nn.Conv1d(1, 64, 320, 80, bias=True), torch.nn.Conv1d(64, 64, 4, 2)
    bands = warm_start(first)
    envelopes(second, bands)
    heard = second(torch.nn.functional.gelu(10 * first(tone(1.003 * mel_centres(bands)[6])[None, None])))[0, :bands]
    heard = heard - second.bias[:bands, None]
    assert heard.mean(-1).argmax() == 6
    assert heard[6].std() < 0.2 * heard[6].mean(), "steady for a steady tone, whatever the phase"


def test_warm_start_needs_room():
    with pytest.raises(ValueError, match="12 channels"):
        warm_start(torch.nn.Conv1d(1, 8, 320))
    with pytest.raises(ValueError, match="bias"):
        warm_start(torch.nn.Conv1d(1, 64, 320, bias=False))


def test_statistics_ignore_padding_and_hear_pitch():
    sound = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    padded = torch.zeros(2, 16_000)
    padded[:, :8000] = sound
    lengths = torch.tensor([8000, 8000])
    whole, part = statistics(sound, lengths), statistics(padded, lengths)
    assert whole.shape == (2, 5 * BANDS + 16)
    assert torch.allclose(whole, part, atol=1e-3)
    saw = torch.stack([sum(tone(f * k) / k for k in range(1, 20)) for f in (120.0, 240.0)])
    pitch = statistics(saw, torch.tensor([8000, 8000]))[:, 5 * BANDS + 7]
    assert pitch.tolist() == pytest.approx(np.log2([1.2, 2.4]).tolist(), abs=0.1)
    assert torch.isfinite(statistics(torch.zeros(1, 800), torch.tensor([800]))).all()


@pytest.mark.parametrize("seconds", [0.12, 0.7, 3.0])
def test_augmented_clips_keep_their_contract(seconds):
    size = int(16_000 * seconds)
    sound = (8000 * np.sin(np.arange(size) / 7)).astype(np.int16)
    labels = np.ones(-(-size // 160), np.int64)
    lengths = set()
    for seed in range(60):
        clip, moved = augment(sound, labels, np.random.default_rng(seed), 20_800, babble=sound)
        assert len(moved) == -(-len(clip) // 160)
        assert 2000 <= len(clip) <= 20_800
        assert clip.dtype == np.float32
        assert np.isfinite(clip).all()
        assert clip.mean() == pytest.approx(0, abs=1e-4)
        assert clip.std() == pytest.approx(1, abs=1e-2)
        lengths.add(len(clip))
        again, _ = augment(sound, labels, np.random.default_rng(seed), 20_800, babble=sound)
        assert np.array_equal(clip, again)
    assert len(lengths) > 10 or seconds == 3.0


def test_labels_move_with_the_sound():
    sound = np.zeros(16_000, np.float32)
    sound[4800:9600] = np.random.default_rng(0).normal(size=4800)
    labels = np.zeros(100, np.int64)
    labels[30:60] = 7
    agreement = []
    for seed in range(40):
        clip, moved = augment(sound, labels, np.random.default_rng(seed), 40_000)
        loud = np.abs(clip[: len(clip) // 160 * 160].reshape(-1, 160)).mean(1)
        spoken = moved[: len(loud)] == 7
        agreement.append(loud[spoken].mean() > loud[~spoken].mean())
        assert set(np.unique(moved)) <= {0, 7}
    assert np.mean(agreement) > 0.9


def test_channels_and_noises_are_finite_and_keep_lengths():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        for size in (1600, 16_001):
            assert channel(rng.normal(size=size), rng).shape == (size,)
            noise = coloured_noise(size, rng)
            assert noise.shape == (size,)
            assert np.isfinite(noise).all()
            assert noise.std() > 0
    assert standardise(np.zeros(100, np.float32)).tolist() == [0.0] * 100


def test_made_up_sounds():
    kinds = set()
    for seed in range(120):
        made, kind, parameters = speech_sounds.sound(16_000, np.random.default_rng(seed))
        kinds.add(kind)
        assert made.shape == (16_000,)
        assert np.isfinite(made).all(), speech_sounds.KINDS[kind]
        assert parameters.shape == (speech_sounds.PARAMETERS,)
        again, _, _ = speech_sounds.sound(16_000, np.random.default_rng(seed))
        assert np.array_equal(made, again)
    assert kinds == set(range(len(speech_sounds.KINDS)))
