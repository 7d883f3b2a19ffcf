"""The built-in speech set: what lies in the package is what the script makes, and it is fit to learn from."""

import hashlib
import io
import json
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
import soundfile

from klnorm_lib.tasks.builtin import spoken_words_generate as generate

FOLDER = files("klnorm_lib.tasks.builtin") / "spoken_words"
SPLITS = {"train": 240, "validation": 40, "test": 160, "ood_accent": 100, "ood_noise": 120}


@pytest.fixture(scope="module")
def info():
    return json.loads((FOLDER / "info.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def metadata(info):
    content = (FOLDER / "metadata.parquet").read_bytes()
    assert hashlib.sha256(content).hexdigest() == info["metadata"]["sha256"]
    return pd.read_parquet(io.BytesIO(content))


@pytest.fixture(scope="module")
def waves(metadata):
    found = {}
    for name, sum_ in zip(metadata["file_name"], metadata["sha256"], strict=True):
        content = (FOLDER / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == sum_, name
        samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
        assert (rate, samples.ndim) == (generate.RATE, 1), name
        found[name] = samples
    return found


def test_metadata_is_what_the_script_would_write(metadata):
    made = pd.DataFrame([vars(row) for row in generate.rows()])
    pd.testing.assert_frame_equal(metadata[list(made)], made)


def test_info_tells_rows_labels_and_checksums(info, metadata):
    assert tuple(info["label_names"]) == generate.WORDS
    assert info["columns"] == list(metadata.columns)
    assert {split: entry["rows"] for split, entry in info["splits"].items()} == SPLITS
    for split, entry in info["splits"].items():
        part = metadata[metadata["split"] == split]
        lines = "".join(f"{s}  {f}\n" for s, f in zip(part["sha256"], part["file_name"], strict=True))
        assert hashlib.sha256(lines.encode()).hexdigest() == entry["sha256"]


def test_no_file_is_missing_superfluous_or_repeated(metadata):
    assert sorted(metadata["file_name"]) == sorted(f"audio/{p.name}" for p in (FOLDER / "audio").iterdir())
    assert metadata["sha256"].is_unique


def test_the_set_is_small():
    paths = [*(FOLDER / "audio").iterdir(), FOLDER / "metadata.parquet", FOLDER / "info.json"]
    assert sum(len(p.read_bytes()) for p in paths) < 6_000_000


def test_every_split_has_every_word_equally_often(metadata):
    counts = metadata.groupby("split")["label"].value_counts().unstack()
    assert counts.shape == (len(SPLITS), len(generate.WORDS))
    assert (counts.nunique(axis=1) == 1).all()
    assert (metadata["word"] == metadata["label"].map(dict(enumerate(generate.WORDS)))).all()


def test_speakers_are_disjoint(metadata):
    speaker = metadata["voice"].str.partition("+")[2]
    by_split = {split: set(speaker[metadata["split"] == split]) for split in SPLITS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not by_split[one] & by_split[other]
    for shift in ("ood_accent", "ood_noise"):
        assert by_split[shift] <= by_split["test"]


def test_accents_of_the_shift_are_not_trained_on(metadata):
    accents = {split: set(part["accent"]) for split, part in metadata.groupby("split")}
    assert accents["train"] == accents["validation"] == accents["test"] == accents["ood_noise"]
    assert not accents["ood_accent"] & accents["train"]


def test_recordings_are_audible_not_clipped_and_begin_at_once(metadata, waves):
    for row in metadata.itertuples():
        wave = waves[row.file_name] / 32768
        assert len(wave) == row.n_samples
        assert 0.2 < len(wave) / row.sample_rate < 0.75, row.file_name
        peak, rms = np.abs(wave).max(), np.sqrt(np.mean(wave**2))
        assert peak == pytest.approx(0.5 * 10 ** (row.gain_db / 20), abs=1e-4), row.file_name
        assert -40 < 20 * np.log10(rms) < -15, row.file_name
        frames = wave[: len(wave) // 80 * 80].reshape(-1, 80)
        loud = np.flatnonzero(np.sqrt((frames**2).mean(1)) > 0.03 * peak)  # 5 ms each
        assert loud[0] * 80 / row.sample_rate < 0.25, row.file_name


def test_noise_is_as_loud_as_stated(metadata):
    stated = metadata.groupby("noise")["snr_db"]
    assert {kind: (part.min(), part.max()) for kind, part in stated if kind != "pink"} == {
        kind: (snr, snr) for kind, snr in generate.OOD_SNR.items()
    }
    pink = stated.get_group("pink")
    assert pink.between(15, 35).all()
    assert set(metadata["noise"][metadata["split"] != "ood_noise"]) == {"pink"}


def test_noise_shift_repeats_recordings_of_test(metadata):
    test, shift = (metadata[metadata["split"] == s].set_index(["voice", "word"]) for s in ("test", "ood_noise"))
    same = ["label", "pitch", "speed", "gain_db"]
    pd.testing.assert_frame_equal(test.loc[shift.index, same], shift[same])


needs_espeak = pytest.mark.skipif(
    generate.espeak_version() != generate.ESPEAK, reason=f"needs espeak-ng {generate.ESPEAK}, which made the set"
)


@needs_espeak
def test_script_makes_the_same_samples(waves):
    for row in generate.rows()[::61]:
        np.testing.assert_array_equal(generate.record(row), waves[row.file_name], err_msg=row.file_name)


@needs_espeak
def test_voices_sound_different(metadata):
    """espeak-ng silently ignores a speaker that it does not know, and some accents ignore every speaker."""
    voices = metadata["voice"].unique()
    assert len({generate.speak("yes", voice, 50, 160).tobytes() for voice in voices}) == len(voices)


@needs_espeak
def test_unknown_voice_is_an_error():
    with pytest.raises(ValueError, match="cannot speak as 'zz-none'"):
        generate.speak("yes", "zz-none", 50, 160)


def test_missing_synthesiser_is_an_error(monkeypatch):
    monkeypatch.setattr(generate, "espeak_version", lambda: None)
    with pytest.raises(RuntimeError, match="espeak-ng is not on the path"):
        generate.speak("yes", "en+m1", 50, 160)
