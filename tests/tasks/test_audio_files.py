"""A reader's own table of recordings as a task."""

import shutil

import numpy as np
import pytest

from klnorm_lib import tasks
from klnorm_lib.tasks import audio_cache
from tests.study import hearing
from tests.tasks import sounds


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv(audio_cache.VARIABLE, str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def table(tmp_path):
    return hearing.table(tmp_path / "mine", rows=40)


def load(path, **options):
    return tasks.from_file(path, audio="path", label="verdict", **options)


def test_recordings(table):
    data, task, facts = load(table)
    assert facts["rows"] == {"train": 26, "validation": 6, "test": 8}
    assert (task.kind, task.text_columns, task.sampling_rate) == ("audio", (), 16000)
    assert task.label_names == ("high", "low")
    assert sorted(data["test"]["label"]) == [0] * 4 + [1] * 4
    for row in data["test"].with_format("numpy"):
        spectrum = np.abs(np.fft.rfft(row["audio"] * np.hanning(len(row["audio"])), 16000))
        assert (spectrum.argmax() > 1500) == (row["label"] == 0)


def test_subsets_and_repeats(table):
    few, many = load(table, size=10)[0], load(table, size=20)[0]
    assert {tuple(row) for row in few["train"]["audio"]} < {tuple(row) for row in many["train"]["audio"]}
    shutil.copy(table.parent / "00.wav", table.parent / "copy.wav")
    as_it_was = table.read_text()
    table.write_text(as_it_was + "copy.wav,low\n")
    with pytest.warns(UserWarning, match="1 of 41 rows were left out because they repeat the sound and the label"):
        assert load(table)[2]["removed"] == {"rows repeated in the file": 1}
    table.write_text(as_it_was + "copy.wav,high\n")
    with pytest.warns(UserWarning, match="1 row repeats the sound of an earlier row with a different label"):
        assert load(table)[2]["removed"] == {"rows repeated in the file with another label": 1}


def test_the_folder_may_move(table, tmp_path):
    before = load(table)[2]["checksums"]
    moved = shutil.move(table.parent, tmp_path / "elsewhere")
    assert load(moved / table.name)[2]["checksums"] == before


def test_bad_recordings_are_named(table):
    table.write_text(table.read_text() + "none.wav,low\n")
    with pytest.raises(tasks.CorruptDataError, match="clips.csv names the sound file 'none.wav', and there is no file"):
        load(table)
    (table.parent / "none.wav").write_bytes(sounds.encoded(np.zeros(8000), form="WAV"))
    with pytest.raises(tasks.CorruptDataError, match="none.wav is silent"):
        load(table)


def test_scores_are_refused(tmp_path):
    path = hearing.table(tmp_path, rows=12)
    path.write_text(path.read_text().replace("low", "0.5").replace("high", "1.25"))
    with pytest.raises(tasks.TaskError, match="recordings can only be classified"):
        load(path)


@pytest.fixture
def room(table):
    """The table with ten recordings of a quiet room, labelled silence."""
    for i in range(10):
        hiss = np.random.default_rng(i).uniform(-4e-4, 4e-4, 4000)
        (table.parent / f"q{i}.wav").write_bytes(sounds.encoded(hiss, form="WAV"))
    table.write_text(table.read_text() + "".join(f"q{i}.wav,silence\n" for i in range(10)))
    return table


def test_classes_may_be_quiet(room):
    for quiet in ("silence", ["silence"], ("silence", "low")):
        data, task, _ = load(room, quiet=quiet)
    assert task.label_names == ("high", "low", "silence")
    assert sum(label == 2 for split in data.values() for label in split["label"]) == 10
    assert max(abs(v) for row in data["test"] if row["label"] == 2 for v in row["audio"]) < 1e-3


def test_a_quiet_recording_names_the_option_and_what_was_allowed_once_is_not_allowed_for_ever(room):
    load(room, quiet="silence")
    for quiet in ((), "low"):
        with pytest.raises(
            tasks.CorruptDataError, match=r"silent: .* allow it with quiet='silence' \(--quiet silence on"
        ):
            load(room, quiet=quiet)


def test_quiet_names_classes_of_recordings(room, tmp_path):
    with pytest.raises(
        tasks.TaskError, match="quiet names 'hush', and the labels of clips.csv are 'high', 'low', 'sil"
    ):
        load(room, quiet=["hush", "silence"])
    texts = tmp_path / "texts.csv"
    texts.write_text("text,label\n" + "".join(f"words {i},{i % 2}\n" for i in range(20)))
    with pytest.raises(tasks.TaskError, match="quiet names classes of recordings; it needs audio="):
        tasks.from_file(texts, quiet="0")


def test_the_peak_is_stated_and_above_full_scale_said(table, recwarn):
    assert 0.4 <= load(table)[2]["peak"] < 0.5  # a filter overshoots
    assert not [w for w in recwarn if "full scale" in str(w.message)]
    for i in range(3):
        wave = 4 * sounds.tone(i, 16000)
        (table.parent / f"{i:02}.wav").write_bytes(sounds.encoded(wave, 16000, "WAV", "FLOAT"))
    with pytest.warns(
        UserWarning, match=r"clips.csv: 3 of its recordings go above full scale, .*the loudest up to 1\.6"
    ):
        assert load(table)[2]["peak"] == pytest.approx(1.6, abs=0.01)
