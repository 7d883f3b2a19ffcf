"""One sound file: what comes out of it, and every way in which it can be bad."""

import numpy as np
import pytest

from klnorm_lib import tasks
from klnorm_lib.tasks import audio
from tests.tasks import sounds


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_resampling_keeps_the_tone(rate):
    samples, _ = audio.decode(sounds.encoded(sounds.tone(30, rate, 0.5), rate), "a.flac")
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) - 8000) <= 1
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 16000))
    assert spectrum.argmax() == 410  # Hz, the tone of index 30
    middle = samples[1000:-1000]
    np.testing.assert_allclose(np.sqrt(2 * (middle**2).mean()), 0.4, rtol=0.02)


def test_a_tone_above_the_new_range_is_removed_and_does_not_fold_back():
    time = np.arange(22050) / 44100
    samples, _ = audio.decode(sounds.encoded(0.4 * np.sin(2 * np.pi * 12_000 * time), 44100), "a.flac")
    assert np.abs(samples[1000:-1000]).max() < 0.01


def test_channels_are_averaged():
    one, two = sounds.tone(1), sounds.tone(2)
    samples, _ = audio.decode(sounds.encoded(np.stack([one, two], 1), 16000), "a.flac", 16000)
    np.testing.assert_allclose(samples, (one + two) / 2, atol=1e-4)


def test_what_was_recorded_has_one_checksum_in_any_lossless_form():
    wave = np.round(sounds.tone(3) * 2**15) / 2**15
    sums = {audio.decode(sounds.encoded(wave, form=form), "a")[1] for form in ("FLAC", "WAV", "AIFF")}
    assert len(sums) == 1
    assert audio.decode(sounds.encoded(wave, 16000), "a")[1] not in sums  # the same numbers at another rate
    assert audio.decode(sounds.encoded(wave[:-1]), "a")[1] not in sums


def test_ogg_is_read():
    content = sounds.encoded(sounds.tone(4, 44100, 0.5), 44100, "OGG", "VORBIS")
    samples, recorded = audio.decode(content, "a.ogg", 44100)
    assert abs(len(samples) - 8000) <= 1
    assert recorded == sounds.sha256(content)  # its samples depend on the decoder


def loud(rate=8000):
    return np.clip(20 * sounds.tone(0, rate), -1, 1)


def not_finite():
    samples = sounds.tone(0).astype(np.float32)
    samples[17] = np.nan
    return sounds.encoded(samples, form="WAV", subtype="FLOAT")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", r"bad\.flac is empty \(0 bytes\)"),
        (lambda: b"RIFF, or so it says", "bad.flac is not a readable sound file"),
        (lambda: b"%PDF-1.4 and no sound at all", "bad.flac is not a readable sound file"),
        (lambda: sounds.encoded(np.zeros(0), form="WAV"), "bad.flac is empty: a header and no samples"),
        (lambda: sounds.encoded(np.zeros(8000)), "bad.flac is silent: its loudest sample .* Check the microphone"),
        (lambda: sounds.encoded(1e-4 * sounds.tone(0)), "bad.flac is silent"),
        (lambda: sounds.encoded(loud()), r"bad.flac is clipped: \d\d% of its samples are at full scale"),
        (lambda: sounds.encoded(sounds.tone(0, seconds=0.02)), "bad.flac is too short: 0.020 s, at least 0.05 s"),
        (not_finite, r"bad.flac has samples that are NaN or infinite \(the first at 17\)"),
        (lambda: sounds.encoded(np.full(8000, 0.5)), r"silent: .* beside a constant offset of 0\.5, under 0\.001"),
        (lambda: sounds.encoded(np.stack([sounds.tone(1), -sounds.tone(1)], 1)), "silent once its 2 channels are aver"),
        (lambda: sounds.encoded(loud(), form="WAV", subtype="PCM_U8"), "bad.flac is clipped"),
        (lambda: sounds.encoded(loud(), form="WAV", subtype="ALAW"), "bad.flac is clipped"),
        (
            lambda: sounds.encoded(sounds.tone(0), 100, form="WAV"),
            "is sampled at 100 Hz by its header; sound has 1,000",
        ),
        (lambda: sounds.encoded(sounds.tone(0), form="VOC"), "bad.flac is a VOC file, .* convert it to WAV or FLAC"),
    ],
)
def test_bad_sounds_are_named(content, message):
    with pytest.raises(tasks.CorruptDataError, match=message):
        audio.decode(content(), "bad.flac")


@pytest.mark.parametrize("code", ["PCM_16", "PCM_24", "PCM_32", "PCM_U8", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_way_to_write_a_sample_gives_the_same_sound(code, channels):
    wave = np.tile(sounds.tone(5, seconds=0.5)[:, None], channels)
    samples, _ = audio.decode(sounds.encoded(wave, form="WAV", subtype=code), "a.wav", 8000, 4000)
    expected, _ = audio.decode(sounds.encoded(wave[:, 0], form="WAV", subtype="DOUBLE"), "a.wav")
    np.testing.assert_allclose(samples, expected, atol=2 / 128 if code == "PCM_U8" else 1e-4)


@pytest.mark.parametrize("code", ["FLOAT", "DOUBLE"])
def test_files_of_floats_are_read_as_they_are_above_full_scale(code):
    wave = 1.6 * np.sin(2 * np.pi * 300 * np.arange(16000) / 16000)
    samples, _ = audio.decode(sounds.encoded(wave, 16000, "WAV", code), "loud.wav")
    np.testing.assert_allclose(samples, wave, atol=1e-6)
    square = np.sign(wave + 1e-9) * 1.5
    assert audio.decode(sounds.encoded(square, 16000, "WAV", code), "square.wav")[0].max() == 1.5


@pytest.mark.parametrize(
    ("scale", "divisor"),
    [(100, "128"), (32768, "32,768"), (3000, "32,768"), (8e6, "8,388,608"), (2e9, "2,147,483,648")],
)
@pytest.mark.parametrize("whole", [True, False])
def test_floats_of_another_scale_are_refused(scale, divisor, whole):
    wave = scale * np.sin(2 * np.pi * 300 * np.arange(16000) / 16000)
    wave = np.round(wave) if whole else wave
    with pytest.raises(
        tasks.CorruptDataError, match=f"^ints.wav is out of scale: .* divide them by {divisor}, and wri"
    ):
        audio.decode(sounds.encoded(wave, 16000, "WAV", "FLOAT"), "ints.wav")


def test_quiet_whole_numbers_are_no_floats_of_a_loud_recording():
    with pytest.raises(tasks.CorruptDataError, match="8-bit whole numbers: divide them by 128"):
        audio.decode(sounds.encoded(np.round(30 * sounds.tone(0)), 8000, "WAV", "FLOAT"), "ints.wav")
    with pytest.raises(tasks.CorruptDataError, match="have another scale, and write the file again"):
        audio.decode(sounds.encoded(1e12 * sounds.tone(0), 8000, "WAV", "FLOAT"), "odd.wav")


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "NIST", "RF64", "W64", "WAVEX"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_a_truncated_file_is_named(form, share):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 30_000)
    whole = sounds.encoded(noise, form=form)
    audio.decode(whole, "whole")
    with pytest.raises(tasks.CorruptDataError, match=r"cut\.wav is (truncated|not a readable sound file|empty)"):
        audio.decode(whole[: int(share * len(whole))], "cut.wav")


def test_what_the_table_declares_must_hold():
    content = sounds.encoded(sounds.tone(0))
    audio.decode(content, "a.flac", 8000, 800)
    with pytest.raises(tasks.CorruptDataError, match="a.flac is sampled at 8,000 Hz, but its table says 16,000 Hz"):
        audio.decode(content, "a.flac", 16000)
    with pytest.raises(tasks.CorruptDataError, match="a.flac has 800 samples, but its table says 900"):
        audio.decode(content, "a.flac", 8000, 900)


def test_silence_may_be_allowed():
    samples, _ = audio.decode(sounds.encoded(np.zeros(8000)), "silence.flac", silence_ok=True)
    assert not samples.any()


def test_without_soundfile_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(tasks.TaskError, match="pip install soundfile"):
        audio.decode(b"anything", "a.flac")
