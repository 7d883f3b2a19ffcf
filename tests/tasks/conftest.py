"""A tiny mirror in a temporary folder, written in the real layout, and a stand-in for the client of the hub."""

import hashlib
import json
from types import SimpleNamespace

import datasets
import pyarrow.parquet as pq
import pytest

from klnorm_lib.tasks import hub, spec
from klnorm_lib.tasks.rows import Rows, to_dataset

SHA = "0123456789abcdef0123456789abcdef01234567"


class TinyMirror:
    """Writes data sets below a folder and puts it into KLNORM_MIRROR."""

    def __init__(self, root):
        self.root = root

    def write(self, data, splits, revision=None, **changes):
        """Write one data set; ``splits`` maps a split name to (texts, labels)."""
        folder = self.root / "datasets" / data.folder
        folder.mkdir(parents=True, exist_ok=True)
        entries = {}
        for name, (texts, labels) in splits.items():
            texts = [t if isinstance(t, tuple) else (t,) * len(data.text_columns) for t in texts]
            table = to_dataset(Rows(texts, labels), data.text_columns, data.label_names).with_format("arrow")[:]
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
            sha256 = hashlib.sha256((folder / f"{name}.parquet").read_bytes()).hexdigest()
            entries[name] = {"rows": len(labels), "sha256": sha256}
        names = None if data.label_names is None else list(data.label_names)
        info = {"label_column": "label", "label_names": names, "splits": entries, "hub": {"revision": revision}}
        (folder / "info.json").write_text(json.dumps({**info, **changes}))
        return folder

    def task(self, name, train=100, test=20, ood=40):
        """Write a whole task with its out-of-domain sets: distinct texts, labels in turn."""
        task = spec(name)

        def rows(prefix, count, classes):
            labels = [i % classes for i in range(count)] if classes else [5.0 * i / count for i in range(count)]
            return [f"{prefix} row number {i}" for i in range(count)], labels

        classes = 0 if task.label_names is None else task.num_labels
        splits = {part: rows(f"{name} train", train, classes) for part in task.train.mirror}
        for part in task.test.mirror:
            splits[part] = rows(f"{name} {part}", test, classes)
        folder = self.write(task.data, splits)
        for key, entry in task.ood.items():
            parts = (*entry.splits.mirror, *entry.origin)
            self.write(entry.data, {part: rows(f"{key} {part}", ood, len(entry.label_names)) for part in parts})
        return folder


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("KLNORM_MIRROR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return TinyMirror(tmp_path)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.delenv("KLNORM_MIRROR", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


class FakeHub:
    """Holds (id, config, split) -> Dataset and notes every call."""

    def __init__(self):
        self.tables, self.calls, self.scripts = {}, [], set()

    def add(self, data, split, texts, labels, names="own", **columns):
        names = list(data.label_names) if names == "own" else names
        rows = {data.columns.get(c, c): [f"{t} {c}" for t in texts] for c in data.text_columns}
        label = data.columns.get("label", "label")
        table = datasets.Dataset.from_dict({**rows, label: labels, **columns})
        if names:
            table = table.cast_column(label, datasets.ClassLabel(names=names))
        self.tables[data.hub, data.config, split] = table

    def load_dataset(self, path, name=None, *, split, revision):
        self.calls.append((path, name, split, revision))
        if path in self.scripts and revision == SHA:
            raise RuntimeError("Dataset scripts are no longer supported, but found it.py")
        if (path, name, split) not in self.tables:
            raise ValueError(f'Unknown split "{split}".')
        return self.tables[path, name, split]

    def dataset_info(self, repo, revision=None):
        return SimpleNamespace(sha=SHA if revision is None else "f" * 40)


@pytest.fixture
def fake(monkeypatch):
    fake = FakeHub()
    hub._resolve.cache_clear()
    monkeypatch.delenv("KLNORM_MIRROR", raising=False)
    monkeypatch.setattr(hub.huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.datasets, "load_dataset", fake.load_dataset)
    monkeypatch.setattr(hub.huggingface_hub, "HfApi", lambda: fake)
    yield fake
    hub._resolve.cache_clear()
