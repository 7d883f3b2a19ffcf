"""The cache of decoded audio: used when whole, made again when not, no trouble when it cannot be had."""

import numpy as np
import pytest

from klnorm_lib.tasks import audio_cache

SUM = "ab" * 32


class Counting:
    """A decoder that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return np.arange(100, dtype=np.float32), "recorded"


@pytest.fixture
def decode(tmp_path, monkeypatch):
    monkeypatch.setenv(audio_cache.VARIABLE, str(tmp_path / "cache"))
    return Counting()


def test_decoded_once(decode, tmp_path):
    for _ in range(3):
        samples, recorded = audio_cache.decoded(SUM, decode)
        np.testing.assert_array_equal(samples, np.arange(100))
        assert samples.dtype == np.float32
        assert recorded == "recorded"
    assert decode.calls == 1
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept == [audio_cache.entry(SUM)]


def damage_byte(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(b"\xff" * 300),
        damage_byte,
    ],
    ids=["empty", "cut off", "garbage", "one bit"],
)
def test_a_damaged_entry_is_made_again(decode, damage):
    audio_cache.decoded(SUM, decode)
    damage(audio_cache.entry(SUM))
    np.testing.assert_array_equal(audio_cache.decoded(SUM, decode)[0], np.arange(100))
    assert decode.calls == 2
    audio_cache.decoded(SUM, decode)
    assert decode.calls == 2


def test_an_entry_appears_when_it_is_complete(decode, monkeypatch):
    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(audio_cache.os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        audio_cache.decoded(SUM, decode)
    assert not [path for path in audio_cache.folder().rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(audio_cache.VARIABLE, str(tmp_path / "file"))
    decode = Counting()
    for _ in range(2):
        audio_cache.decoded(SUM, decode)
    assert decode.calls == 2


def test_failed_decoding_leaves_nothing(decode):
    def fail():
        raise ValueError("bad file")

    with pytest.raises(ValueError, match="bad file"):
        audio_cache.decoded(SUM, fail)
    assert not audio_cache.folder().exists()


def test_the_folder_can_be_named_or_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv(audio_cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert audio_cache.folder() == tmp_path / "klnorm" / "audio"
    monkeypatch.setenv(audio_cache.VARIABLE, str(tmp_path / "mine"))
    assert audio_cache.folder() == tmp_path / "mine" / "audio"
