"""Audio tasks from the hub, and copied from there into a mirror, with a stand-in for its client."""

import json

import datasets
import pytest

from klnorm_lib import tasks
from klnorm_lib.tasks import audio_cache, hub
from tests.tasks import sounds
from tests.tasks.conftest import SHA


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv(audio_cache.VARIABLE, str(tmp_path_factory.mktemp("cache")))


def add(hub_, data, split, labels, names=None, first=0, **columns):
    """A split with a tone for each label; ``names`` make the labels a ``ClassLabel``."""
    contents = [sounds.encoded(sounds.tone(first + i)) for i in range(len(labels))]
    files = [{"bytes": content, "path": f"{i}.wav"} for i, content in enumerate(contents)]
    label = data.columns.get("label", "label")
    table = datasets.Dataset.from_dict({data.columns.get("audio", "audio"): files, label: labels, **columns})
    table = table.cast_column(data.columns.get("audio", "audio"), datasets.Audio(sampling_rate=16000))
    hub_.tables[data.hub, data.config, split] = (
        table.cast_column(label, datasets.ClassLabel(names=names)) if names else table
    )


def add_ravdess(hub_):
    task = tasks.spec("ravdess")
    actors = [str(1 + i // 16) for i in range(24 * 16)]
    labels = [i % 8 for i in range(24 * 16)]
    add(hub_, task.data, "train", labels, list(task.label_names), speaker_id=actors)
    return task


def test_actors_are_kept_apart(fake):
    add_ravdess(fake)
    data, facts = tasks.load_with_provenance("ravdess", 100)
    assert facts["rows"] == {"train": 80, "validation": 20, "test": 64}
    assert facts["source"] == "hub"
    assert (facts["id"], facts["revision"]) == ("narad/ravdess", SHA)
    assert facts["removed"] == {}
    assert data["train"].features["label"].names[:2] == ["neutral", "calm"]
    assert len(data["train"].with_format("numpy")[0]["audio"]) == 1600


WORDS = ["yes", "bed", "cat", "happy", "_silence_"]


def add_words(hub_):
    task = tasks.spec("speech_commands_3words")
    for part, (split, count) in enumerate({"train": 40, "validation": 10, "test": 5}.items()):
        who = [f"{split}{i % 7}" for i in range(count)]
        first = 100 * part
        add(hub_, task.data, split, [i % 5 for i in range(count)], WORDS, first, speaker_id=who)
    table = hub_.tables[task.data.hub, "v0.01", "validation"]
    both = datasets.concatenate_datasets([table, hub_.tables[task.data.hub, "v0.01", "test"]])
    hub_.tables[task.data.hub, "v0.01", "validation+test"] = both
    return task


def test_classes_that_are_not_asked_for_are_left_out(fake):
    add_words(fake)
    data, facts = tasks.load_with_provenance("speech_commands_3words", 20)
    assert facts["rows"] == {"train": 16, "validation": 4, "test": 9}
    assert data["test"].features["label"].names == ["bed", "cat", "happy"]
    assert sorted(data["test"]["label"]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_names_that_differ_on_the_hub_are_mapped(fake):
    task = tasks.spec("esc10")
    names = [*task.data.hub_labels, "airplane"]
    labels = [names[i % 11] for i in range(5 * 22)]
    folds = [1 + i // 22 for i in range(5 * 22)]
    add(fake, task.data, "train", labels, fold=folds)
    data, facts = tasks.load_with_provenance("esc10", 60, source="hub")
    assert facts["rows"] == {"train": 48, "validation": 12, "test": 40}
    assert data["test"]["label"][:10] == list(range(10))
    assert data["test"].features["label"].names[3] == "Baby cry"


def test_a_filled_mirror_gives_the_rows_of_the_hub(fake, monkeypatch, tmp_path):
    add_ravdess(fake)
    add_words(fake)
    assert tasks.fill_mirror(["ravdess", "speech_commands_3words"], tmp_path) == {
        "ravdess": "written",
        "speech_commands_3words": "written",
    }
    assert tasks.fill_mirror("ravdess", tmp_path) == {"ravdess": "kept"}
    info = json.loads((tmp_path / "datasets" / "speech_commands_3words" / "info.json").read_text())
    assert info["hub"]["revision"] == SHA
    assert info["splits"].keys() == {"train", "validation", "test"}
    assert info["metadata"]["rows"] == 24 + 6 + 3
    assert len(list((tmp_path / "datasets" / "speech_commands_3words" / "audio").iterdir())) == 33
    for name, size in (("ravdess", 100), ("speech_commands_3words", 20)):
        online = tasks.load_with_provenance(name, size, source="hub")[1]
        monkeypatch.setenv("KLNORM_MIRROR", str(tmp_path))
        mirrored = tasks.load_with_provenance(name, size)[1]
        monkeypatch.delenv("KLNORM_MIRROR")
        assert mirrored["source"] == "mirror"
        assert mirrored["checksums"] == online["checksums"]
        assert mirrored["revision"] == SHA


def test_a_data_set_without_sound_is_refused(fake):
    data = tasks.spec("superb_ks").data
    fake.tables[data.hub, data.config, "train"] = datasets.Dataset.from_dict({"audio": ["a.wav"], "label": [0]})
    with pytest.raises(tasks.LayoutError, match="column 'audio' does not hold sound files"):
        tasks.load("superb_ks")
    fake.tables[data.hub, data.config, "train"] = datasets.Dataset.from_dict({"file": ["a.wav"], "label": [0]})
    with pytest.raises(tasks.LayoutError, match=r"lacks \['audio'\]"):
        tasks.load("superb_ks")


def test_a_row_without_its_file_is_named(fake):
    task = add_ravdess(fake)
    table = fake.tables[task.data.hub, None, "train"].cast_column("audio", datasets.Audio(decode=False))
    rows = [{"bytes": None, "path": "nowhere.wav"} if i == 3 else row["audio"] for i, row in enumerate(table)]
    table = table.remove_columns("audio").add_column("audio", rows).cast_column("audio", datasets.Audio())
    fake.tables[task.data.hub, None, "train"] = table
    with pytest.raises(tasks.CorruptDataError, match=r"narad/ravdess, row 3: the hub's row holds no sound file"):
        tasks.load("ravdess")


def test_a_configuration_of_a_converted_script_is_a_folder(fake, monkeypatch):
    asked = {}
    data = tasks.spec("superb_ks").data

    def load_dataset(path, name=None, *, split, revision, data_dir=None):
        if revision == SHA:
            raise RuntimeError("Dataset scripts are no longer supported, but found superb.py")
        asked.update(name=name, data_dir=data_dir)
        return datasets.Dataset.from_dict({"a": [1]})

    monkeypatch.setattr(hub.datasets, "load_dataset", load_dataset)
    hub.load_table(data, "train")
    assert asked == {"name": None, "data_dir": "ks"}


def test_sums_of_splits_are_read_in_one_call(fake):
    add_words(fake)
    tasks.load("speech_commands_3words", 20)
    assert {call[2] for call in fake.calls} == {"train", "validation+test"}
