"""Headers that do not say how long a sound is, or say it wrongly: whole recordings are read, cut ones are not."""

import struct

import numpy as np
import pytest

from klnorm_lib import tasks
from klnorm_lib.tasks import audio, audio_flac, audio_mpeg, audio_riff
from tests.tasks import sounds

WAVE = np.round(sounds.tone(30, seconds=1.0) * 2**15) / 2**15
WAV = sounds.encoded(WAVE, form="WAV")
WHOLE = audio.decode(WAV, "whole.wav")


def with_sizes(riff=None, data=None, content=WAV):
    content = bytearray(content)
    for at, size in ((4, riff), (40, data)):
        if size is not None:
            content[at : at + 4] = struct.pack("<I", size)
    return bytes(content)


def chunk(name, contents, order="<"):
    return name + struct.pack(order + "I", len(contents)) + contents + b"\0" * (len(contents) % 2)


def assert_whole(content):
    samples, recorded = audio.decode(content, "a.wav")
    np.testing.assert_array_equal(samples, WHOLE[0])
    assert recorded == WHOLE[1]


SIZES = {
    "sox to a pipe": (0x7FFFF024, 0x7FFFF000),
    "arecord": (0x7FFFFF24, 0x7FFFFF00),
    "ffmpeg to a pipe": (0xFFFFFFFF, 0xFFFFFFFF),
    "two GiB": (0x80000024, 0x80000000),
    "nothing filled in": (0, 0),
    "a header of no samples": (36, 0),
    "only data not filled in": (None, 0),
    "only RIFF not filled in": (0, None),
    "RIFF of a pipe": (0x7FFFF024, None),
    "RIFF of the whole file": (len(WAV), None),
    "RIFF 4 too large": (len(WAV) - 4, None),
    "RIFF too small": (100, None),
    "data of the whole file": (len(WAV) - 8, len(WAV)),
    "data of the file less 8": (len(WAV), len(WAV) - 8),
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=list(SIZES))
def test_samples_that_are_there_are_read(sizes):
    assert_whole(with_sizes(*sizes))


@pytest.mark.parametrize("sizes", SIZES.values(), ids=list(SIZES))
def test_a_stream_may_end_within_a_sample(sizes):
    if sizes[1] in (0, None) or sizes[1] >= audio_riff.UNKNOWN:
        assert_whole(with_sizes(*sizes) + b"\x01")


@pytest.mark.parametrize("riff", [None, 0, 0x7FFFF024, 0xFFFFFFFF, 8036, 8044], ids=str)
def test_a_cut_file_is_refused_whatever_its_first_size_says(riff):
    with pytest.raises(tasks.CorruptDataError, match=r"cut\.wav is truncated: 4,000 samples .* promises 8,000\."):
        audio.decode(with_sizes(riff)[:8044], "cut.wav")


def test_chunks_around_the_samples_are_no_samples():
    head, samples = WAV[12:36], chunk(b"data", WAV[44:])
    note = chunk(b"LIST", b"INFOISFTsomething 1")
    for body in (
        note + head + samples,
        head + note + samples,
        head + samples + note,
        head + samples + b"TAG" + bytes(125),
    ):
        assert_whole(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    unpadded = b"LIST" + struct.pack("<I", 19) + b"INFOISFTsomething 1"
    assert_whole(b"RIFF" + bytes(4) + b"WAVE" + head + unpadded + samples)
    empty = head + chunk(b"data", b"") + note
    with pytest.raises(tasks.CorruptDataError, match="empty.wav is empty: a header and no samples"):
        audio.decode(b"RIFF" + struct.pack("<I", 4 + len(empty)) + b"WAVE" + empty, "empty.wav")


def test_samples_that_the_header_does_not_count_are_not_lost_without_a_word():
    with pytest.raises(
        tasks.CorruptDataError, match="counts 4,000 samples, and 8,000 bytes follow them that are no chu"
    ):
        audio.decode(with_sizes(data=8000), "behind.wav")
    with pytest.raises(tasks.CorruptDataError, match="follow them that are a second recording"):
        audio.decode(WAV + WAV, "two.wav")


def test_tags_of_an_mp3_before_a_wav_do_not_matter():
    tag = b"ID3\x03\0\0\0\0\x01\0" + bytes(128)
    assert_whole(tag + WAV)
    with pytest.raises(tasks.CorruptDataError, match="is truncated"):
        audio.decode(tag + WAV[:8000], "cut.wav")


def test_a_wav_without_format_or_samples_is_named():
    with pytest.raises(tasks.CorruptDataError, match="bare.wav is not a readable sound file .*without a format chunk"):
        audio.decode(WAV[:12] + WAV[36:], "bare.wav")
    with pytest.raises(tasks.CorruptDataError, match="bare.wav is truncated: its header ends before the samples"):
        audio.decode(WAV[:40], "bare.wav")


def test_big_endian_and_wide_headers():
    swapped = np.frombuffer(WAV[44:], "<i2").astype(">i2").tobytes()
    head = chunk(b"fmt ", struct.pack(">HHIIHH", 1, 1, 8000, 16000, 2, 16), ">")
    for size in (16000, 0, 0xFFFFFFFF):
        body = head + b"data" + struct.pack(">I", size) + swapped
        assert_whole(b"RIFX" + struct.pack(">I", 4 + len(body)) + b"WAVE" + body)
    wide = sounds.encoded(WAVE, form="RF64")
    at = wide.index(b"ds64") + 16
    for size in (16000, 0, 2**64 - 1):
        assert_whole(wide[:at] + struct.pack("<Q", size) + wide[at + 8 :])
    assert_whole(b"BW64" + wide[4:])
    sony = sounds.encoded(WAVE, form="W64")
    at = sony.index(b"data\xf3") + 16
    for size in (16024, 0, 2**64 - 1, 2**63 - 1):
        assert_whole(sony[:at] + struct.pack("<Q", size) + sony[at + 8 :])


@pytest.mark.parametrize("code", ["GSM610", "IMA_ADPCM", "MS_ADPCM", "ULAW", "ALAW", "G721_32", "NMS_ADPCM_16"])
def test_compressed_wavs_are_read(code):
    content = sounds.encoded(WAVE, form="WAV", subtype=code)
    samples, _ = audio.decode(content, "phone.wav")
    filled = 80 if code == "IMA_ADPCM" else 0  # its writer counts the rest of the last block
    assert len(samples) == 2 * (8000 + filled)
    assert np.corrcoef(samples[400:15600], WHOLE[0][400:15600])[0, 1] > 0.99
    with pytest.raises(tasks.CorruptDataError, match=r"phone\.wav is truncated"):
        audio.decode(content[: len(content) // 2], "phone.wav")
    at = content.index(b"data") + 4
    piped = content[:at] + struct.pack("<I", 0x7FFFF000) + content[at + 4 :]
    np.testing.assert_array_equal(audio.decode(piped, "phone.wav")[0], samples)


def test_a_code_that_is_not_known_is_refused_by_name():
    shape = struct.pack("<HHIIHHH", 0x0161, 1, 8000, 1000, 64, 0, 0)  # Windows Media Audio
    body = chunk(b"fmt ", shape) + chunk(b"data", bytes(640))
    with pytest.raises(
        tasks.CorruptDataError, match=r"wma\.wav is not a readable sound file \((?!.*object at).*in a code"
    ):
        audio.decode(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body, "wma.wav")


def noise(rate, seconds=2.0):
    return np.random.default_rng(0).uniform(-0.5, 0.5, round(rate * seconds))


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2), (22050, 1), (32000, 2), (44100, 1), (48000, 2)])
def test_an_mp3_without_a_count_of_its_frames_is_read_to_its_end(rate, channels):
    wave = np.tile(sounds.tone(30, rate, 4.0)[:, None], channels) * np.linspace(0.2, 1, 4 * rate)[:, None]
    with_count = sounds.encoded(wave, rate, "MP3")
    first = audio_mpeg._frame(with_count, 0)
    bare = with_count[first:]
    assert b"Xing" not in bare[:64]
    samples, _ = audio.decode(bare, "a.mp3")
    assert 4 * 16000 <= len(samples) < 4.3 * 16000
    assert np.abs(samples[-8000:]).max() > 0.3  # the end, which is the loudest
    same = audio.decode(b"ID3\x03\0\0\0\0\x01\0" + bytes(128) + bare + b"TAG" + bytes(125), "a.mp3")[0]
    np.testing.assert_array_equal(same, samples)
    mark = with_count.index(b"Xing" if b"Xing" in with_count[:64] else b"Info")
    for facts in (b"VBRI" + bytes(4), b"Xing" + bytes(4)):  # without a count that the decoder reads
        other = with_count[:mark] + facts + with_count[mark + 8 :]
        np.testing.assert_array_equal(audio.decode(other, "a.mp3")[0], samples)
    with pytest.raises(tasks.CorruptDataError, match="cut.mp3 is truncated: the last of its .* frames is cut"):
        audio.decode(bare[:-5], "cut.mp3")


@pytest.mark.parametrize(("rate", "seconds"), [(8000, 0.1), (8000, 2.0), (44100, 0.1), (44100, 2.0), (16000, 40.0)])
def test_a_flac_from_a_pipe_is_read(rate, seconds):
    whole = sounds.encoded(noise(rate, seconds), rate)
    piped = bytearray(whole)
    piped[21] &= 0xF0
    piped[22:26] = bytes(4)
    assert audio_flac.counted(bytes(piped)) == whole
    np.testing.assert_array_equal(audio.decode(bytes(piped), "a.flac")[0], audio.decode(whole, "a.flac")[0])
    with pytest.raises(tasks.CorruptDataError, match=r"cut\.flac is not a readable sound file"):
        audio.decode(bytes(piped[:-100]), "cut.flac")


@pytest.mark.parametrize(
    ("form", "name", "mark"), [("AIFF", b"SSND", b"\x7f\0\0\x08"), ("AU", bytes([0, 0, 0, 24]), b"\xff" * 4)]
)
def test_other_pipes_are_read(form, name, mark):
    content = sounds.encoded(WAVE, form=form)
    at = content.index(name) + 4
    samples, _ = audio.decode(content[:at] + mark + content[at + 4 :], "a")
    np.testing.assert_allclose(samples[:16000], WHOLE[0], atol=1e-4)


def test_numbers_in_a_header_take_no_memory():
    content = bytearray(sounds.encoded(WAVE))
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4  # 2**36 - 1 samples
    with pytest.raises(tasks.CorruptDataError, match=r"a\.flac is (truncated|not a readable sound file)"):
        audio.decode(bytes(content), "a.flac")


FORMS = [("WAV", "PCM_16"), ("WAV", "GSM610"), ("WAV", "MS_ADPCM"), ("WAV", "FLOAT"), ("RF64", None), ("W64", None)]


@pytest.mark.parametrize(
    ("form", "code"), [*FORMS, *((form, None) for form in ("AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3"))]
)
def test_damaged_headers_raise_nothing_but_errors_that_name_the_file(form, code):
    random = np.random.default_rng(0)
    whole = sounds.encoded(sounds.tone(3, seconds=0.5), form=form, subtype=code)
    refused = 0
    for _ in range(40):
        content = bytearray(whole)
        for at in random.integers(0, 120, random.integers(1, 5)):
            content[at] = random.choice([0, 255, int(random.integers(256))])
        try:
            audio.decode(bytes(content), "odd.wav")
        except tasks.CorruptDataError as error:
            assert str(error).startswith("odd.wav")  # noqa: PT017 - some are still read
            refused += 1
    assert refused


@pytest.mark.parametrize("form", ["OGG", "FLAC"])
def test_two_recordings_in_one_file_are_refused(form):
    content = sounds.encoded(WAVE, form=form)
    audio.decode(content, "one.sound")
    with pytest.raises(tasks.CorruptDataError, match=r"two\.sound holds a second recording behind the first"):
        audio.decode(content + content, "two.sound")
