"""Audio tasks from a folder: what is read, who is kept apart, what is refused."""

import json

import numpy as np
import pytest

from klnorm_lib import tasks
from klnorm_lib.tasks import audio_cache, clips
from tests.tasks import sounds

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv(audio_cache.VARIABLE, str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def fsdd(mirror):
    return sounds.digits(mirror.root)


def test_speakers_of_the_digits_are_kept_apart(fsdd):
    data, facts = tasks.load_with_provenance("fsdd", 50)
    assert facts["rows"] == {"train": 40, "validation": 10, "test": 40}
    assert facts["source"] == "mirror"
    assert facts["files"] == {"datasets/fsdd/metadata.parquet": sounds.sha256((fsdd / "metadata.parquet").read_bytes())}
    assert data["train"].features["label"].names == [str(d) for d in range(10)]
    assert data["train"].column_names == ["audio", "label"]
    assert tasks.spec("fsdd").sampling_rate == 16000
    assert tasks.spec("mrpc").sampling_rate is None
    json.dumps(facts)


def test_samples_are_float32_at_16_khz(fsdd):
    clip = tasks.load("fsdd", 50)["train"].with_format("numpy")[0]["audio"]
    assert clip.dtype == np.float32
    assert clip.shape == (1600,)  # 0.1 s


def test_the_right_samples_are_with_the_right_label(fsdd):
    """The tone of a file tells its index, so that the label can be looked up in the table."""
    data = tasks.load("fsdd_speaker", None)
    names = data["test"].features["label"].names
    for split in data:
        for row in data[split].with_format("numpy"):
            hertz = np.abs(np.fft.rfft(row["audio"] * np.hanning(1600), 16000)).argmax()
            assert names[int(row["label"])] == SPEAKERS[round((hertz - 200) / 7) // 30]


def test_identification_has_no_recording_on_both_sides(fsdd):
    data, facts = tasks.load_with_provenance("fsdd_speaker", 60)
    assert facts["rows"] == {"train": 48, "validation": 12, "test": 60}
    heard = {split: {row["audio"].tobytes() for row in data[split].with_format("numpy")} for split in data}
    assert [len(clips_) for clips_ in heard.values()] == [48, 12, 60]
    assert not heard["train"] & heard["test"]
    assert not heard["train"] & heard["validation"]
    assert not heard["validation"] & heard["test"]


def test_subsets_are_nested_and_the_test_set_is_fixed(fsdd):
    def kept(size, seed=4):
        data = tasks.load("fsdd", size, split_seed=seed)
        return {split: {row["audio"].tobytes() for row in data[split].with_format("numpy")} for split in data}

    small, large, other = kept(50), kept(70), kept(50, 5)
    assert small["train"] < large["train"]
    assert small["validation"] < large["validation"]
    assert small["test"] == large["test"] == other["test"]
    assert small["train"] != other["train"]


def emotions(folder, speakers, **changes):
    rows = [
        {"label": i % 4, "split": split, "speaker": speaker}
        for split, who in speakers.items()
        for speaker in who
        for i in range(12)
    ]
    return sounds.write_set(folder / "datasets" / "emodb4", rows, ["angry", "happy", "neutral", "sad"], **changes)


def test_validation_is_drawn_from_speakers_of_its_own(mirror):
    emotions(mirror.root, {"train": ["03", "08", "09"], "validation": ["12"], "test": ["15", "16"]})
    data, facts = tasks.load_with_provenance("emodb4", 40)
    assert facts["rows"] == {"train": 32, "validation": 8, "test": 24}
    small = tasks.load("emodb4", 20)
    for split, count in (("train", 16), ("validation", 4)):
        few, many = ({tuple(row) for row in part[split]["audio"]} for part in (small, data))
        assert len(few) == count
        assert few < many
    with pytest.raises(tasks.TaskError, match=r"size 46 .* 36 training rows; ask for at most 45"):
        tasks.load("emodb4", 46)
    whole = tasks.load_with_provenance("emodb4")[1]
    assert whole["rows"] == {"train": 36, "validation": 12, "test": 24}


def test_rows_of_test_speakers_are_taken_out_of_train(mirror):
    emotions(mirror.root, {"train": ["03", "08", "15", "012"], "validation": ["12", "16"], "test": ["15", "16"]})
    _, facts = tasks.load_with_provenance("emodb4", 20)
    assert facts["removed"] == {
        "validation rows of speakers in test": 12,
        "train rows of speakers in validation": 12,  # 012 and 12 are one speaker
        "train rows of speakers in test": 12,
    }


def test_repeated_files_are_used_once_and_never_on_both_sides(mirror):
    same, twin = sounds.encoded(sounds.tone(500)), sounds.encoded(sounds.tone(501))
    rows = [{"label": i % 6, "split": "train"} for i in range(60)]
    rows += [{"label": 0, "split": "train", "content": c} for c in (same, twin, twin)]
    rows += [{"label": i % 6, "split": "test"} for i in range(12)] + [{"label": 0, "split": "test", "content": same}]
    rows = [{**row, "speaker": SPEAKERS[row["label"]]} for row in rows] + [
        {"label": 0, "split": "validation", "speaker": "theo"}
    ]
    sounds.write_set(mirror.root / "datasets" / "fsdd", rows, [str(d) for d in range(10)])
    _, facts = tasks.load_with_provenance("fsdd_speaker", 30)
    assert facts["removed"] == {"train rows also in test": 1, "train rows repeated": 1}


def test_six_clips_a_class_limit_the_size(mirror):
    rows = [
        {"label": i % 10, "split": split, "fold": fold}
        for fold, split in zip(range(1, 6), ("train", "train", "train", "validation", "test"), strict=True)
        for i in range(20)
    ]
    folder = sounds.write_set(mirror.root / "datasets" / "esc10_subset", rows, tasks.spec("esc10").label_names)
    assert tasks.load_with_provenance("esc10", 50)[1]["rows"] == {"train": 40, "validation": 10, "test": 40}
    with pytest.raises(tasks.TaskError, match="at most 60 rows .*6 training clips a class"):
        tasks.load("esc10", 70)
    assert folder.is_dir()


def test_rounds_split_the_arabic_speakers(mirror):
    names = tasks.spec("arabic_speakers").label_names
    rows = [
        {"label": word, "split": split, "speaker": name, "round": f"{round_:02}"}
        for split, part in (("train", names[:18]), ("validation", names[18:24]), ("test", names[24:]))
        for name in part
        for word in range(3)
        for round_ in (1, 2, 3)
    ]
    words = tasks.spec("arabic_speech_commands").label_names
    sounds.write_set(mirror.root / "datasets" / "arabic_speech_commands", rows, words)
    data, facts = tasks.load_with_provenance("arabic_speakers", 150)
    assert facts["rows"] == {"train": 120, "validation": 30, "test": 90}
    assert set(data["train"]["label"]) == set(data["test"]["label"]) == set(range(30))


def test_a_table_in_csv_gives_the_same_rows(mirror):
    folder = sounds.digits(mirror.root)
    parquet = tasks.load_with_provenance("fsdd_speaker", 60)[1]["checksums"]
    for name in ("metadata.parquet", "info.json"):
        (folder / name).unlink()
    sounds.digits(mirror.root, table="csv")
    assert tasks.load_with_provenance("fsdd_speaker", 60)[1]["checksums"] == parquet
    assert tasks.load("fsdd", 50)["test"]["label"][:2] == [0, 1]


def test_only_what_is_used_is_decoded(fsdd, monkeypatch):
    opened = []
    decode = clips.Clip.decode
    monkeypatch.setattr(clips.Clip, "decode", lambda clip: opened.append(clip.name) or decode(clip))
    tasks.load("fsdd_speaker", 60)
    assert len(opened) == len(set(opened)) == 120


def test_damaged_files_are_named_also_when_they_are_cached(fsdd):
    tasks.load("fsdd_speaker", 60)
    path = fsdd / "audio" / "0001.flac"  # a test row
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(tasks.CorruptDataError, match=r"0001.flac is truncated or changed: its SHA-256 is"):
        tasks.load("fsdd_speaker", 60)
    path.unlink()
    with pytest.raises(tasks.CorruptDataError, match=r"0001.flac is missing although the table beside it lists it"):
        tasks.load("fsdd_speaker", 60)
    path.write_bytes(whole)
    tasks.load("fsdd_speaker", 60)


def test_a_rate_other_than_the_declared_one_is_refused(mirror):
    rows = [
        {"label": i % 6, "split": s, "speaker": SPEAKERS[i % 6]} for s in ("train", "validation") for i in range(30)
    ]
    rows += [{"label": i, "split": "test", "speaker": SPEAKERS[i], "sample_rate": 16000} for i in range(6)]
    sounds.write_set(mirror.root / "datasets" / "fsdd", rows, [str(d) for d in range(10)])
    with pytest.raises(tasks.CorruptDataError, match="0060.flac is sampled at 8,000 Hz, but its table says 16,000 Hz"):
        tasks.load("fsdd_speaker", 30)


def edit(folder, change):
    info = json.loads((folder / "info.json").read_text())
    change(info)
    (folder / "info.json").write_text(json.dumps(info))


def cut_table(folder):
    path = folder / "metadata.parquet"
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (cut_table, tasks.CorruptDataError, "metadata.parquet is truncated or changed"),
        (lambda f: (f / "metadata.parquet").unlink(), tasks.CorruptDataError, "metadata.parquet is missing"),
        (lambda f: (f / "info.json").unlink(), tasks.CorruptDataError, "info.json is missing"),
        (lambda f: edit(f, lambda i: i.pop("metadata")), tasks.CorruptDataError, "has no 'metadata'"),
        (lambda f: edit(f, lambda i: i["metadata"].update(rows=7)), tasks.CorruptDataError, "info.json says 7"),
        (lambda f: edit(f, lambda i: i["splits"]["test"].update(rows=7)), tasks.CorruptDataError, "not the 7 rows"),
        (lambda f: edit(f, lambda i: i["splits"].pop("test")), tasks.LayoutError, "lists the splits"),
        (lambda f: edit(f, lambda i: i.update(label_names=["a"])), tasks.LayoutError, r"its labels are \['a'\]"),
    ],
)
def test_damaged_folders_are_refused(fsdd, damage, error, message):
    damage(fsdd)
    with pytest.raises(error, match=message):
        tasks.load("fsdd", 50)


def test_missing_columns_and_paths_out_of_the_folder(mirror):
    rows = [{"label": i % 10, "split": s} for s in ("train", "validation", "test") for i in range(10)]
    folder = sounds.write_set(mirror.root / "datasets" / "fsdd", rows, [str(d) for d in range(10)])
    with pytest.raises(tasks.LayoutError, match=r"lacks \['speaker'\]"):
        tasks.load("fsdd", 50)
    rows = [{**row, "speaker": "theo", "file_name": "../../secret.wav"} for row in rows]
    sounds.write_set(folder, rows, [str(d) for d in range(10)])
    with pytest.raises(tasks.CorruptDataError, match="leads out of the folder"):
        tasks.load("fsdd", 50)


def test_nowhere_to_be_found(mirror):
    with pytest.raises(tasks.SourceUnavailableError, match="holds datasets/fsdd.*no version of 'fsdd' on the hub"):
        tasks.load("fsdd", 50)
