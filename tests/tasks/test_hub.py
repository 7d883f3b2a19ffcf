"""The hub as a source and as the filler of mirrors, with a stand-in for its client."""

import json
from contextlib import nullcontext

import datasets
import pytest

from klnorm_lib import tasks
from klnorm_lib.tasks import hub
from tests.tasks.conftest import SHA


def add_task(fake, name, train=60, test=9):
    task = tasks.spec(name)
    for split, count in ((task.train.hub, train), (task.test.hub, test)):
        labels = [i % task.num_labels for i in range(count)]
        fake.add(task.data, split, [f"{split} {i}" for i in range(count)], labels)
    return task


def test_the_revision_is_resolved_and_recorded(fake):
    add_task(fake, "mrpc")
    data, facts = tasks.load_with_provenance("mrpc", 50)
    assert (facts["source"], facts["id"], facts["revision"]) == ("hub", "nyu-mll/glue", SHA)
    assert {call[3] for call in fake.calls} == {SHA}
    assert {call[:3] for call in fake.calls} == {
        ("nyu-mll/glue", "mrpc", "train"),
        ("nyu-mll/glue", "mrpc", "validation"),
    }
    assert data["train"].column_names == ["sentence1", "sentence2", "label"]


def test_columns_that_differ_are_mapped(fake):
    add_task(fake, "trec")
    assert tasks.load("trec", source="hub")["test"]["label"][:6] == [0, 1, 2, 3, 4, 5]


def test_rows_with_hidden_labels_are_left_out(fake):
    task = add_task(fake, "snli")
    fake.add(task.data, "test", ["a", "b", "c"], [0, -1, 2], names=None)
    with pytest.warns(UserWarning, match="left out"):
        data, facts = tasks.load_with_provenance("snli", source="hub")
    assert data["test"]["label"][:] == [0, 2]
    assert facts["removed"]["rows with a hidden label"] == 1
    fake.add(task.data, "test", ["a"], [-1], names=None)
    with pytest.raises(tasks.LayoutError, match="hidden labels"):
        tasks.load("snli", source="hub")


def test_label_strings_are_mapped_by_name(fake):
    task = add_task(fake, "snli")
    cad = task.ood["cad_nli"].data
    fake.add(cad, "test", ["x", "y"], ["neutral", "contradiction"], names=None)
    with pytest.warns(UserWarning, match="left out"):
        data, facts = tasks.load_with_provenance("snli", source="hub")
    assert data["ood/cad_nli"]["label"][:] == [1, 2]
    assert facts["ood"]["cad_nli"]["revision"] == SHA
    assert facts["ood_missing"]["med"] == "no version on the hub is known"
    assert "no split 'full'" in facts["ood_missing"]["joci"]


def test_label_outside_the_range(fake):
    task = add_task(fake, "sst5")
    fake.add(task.data, "test", ["a"], [5], names=None)
    with pytest.raises(tasks.CorruptDataError, match="SetFit/sst5, split test, row 0: label 5 is outside the range"):
        tasks.load("sst5", source="hub")


def test_missing_column(fake):
    task = add_task(fake, "sst5")
    fake.tables[task.data.hub, None, "test"] = datasets.Dataset.from_dict({"sentence": ["a"], "label": [0]})
    with pytest.raises(tasks.LayoutError, match=r"lacks \['text'\]"):
        tasks.load("sst5", source="hub")


def test_scripts_are_not_run_the_parquet_copy_is_read(fake):
    add_task(fake, "trec")
    fake.scripts.add("CogComp/trec")
    assert tasks.load_with_provenance("trec")[1]["revision"] == "f" * 40


def test_switched_off_and_unreachable(fake, monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub.datasets, "load_dataset", fail)
    with pytest.raises(tasks.SourceUnavailableError, match="could not be read from the hub .*no route.*KLNORM_MIRROR"):
        tasks.load("mrpc", source="hub")
    monkeypatch.setattr(hub.huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(tasks.SourceUnavailableError, match="Unset HF_HUB_OFFLINE, or set KLNORM_MIRROR"):
        tasks.load("mrpc", source="hub")


def test_the_mirror_comes_first(fake, monkeypatch, tmp_path):
    add_task(fake, "mrpc")
    tasks.fill_mirror("mrpc", tmp_path)
    monkeypatch.setenv("KLNORM_MIRROR", str(tmp_path))
    fake.calls.clear()
    assert tasks.load_with_provenance("mrpc")[1]["source"] == "mirror"
    assert fake.calls == []


def test_a_filled_mirror_gives_the_rows_of_the_hub(fake, monkeypatch, tmp_path):
    task = add_task(fake, "rte")
    fake.add(task.ood["sick"].data, "test", [f"sick {i}" for i in range(30)], [i % 3 for i in range(30)])
    add_task(fake, "trec")
    lines = []
    result = tasks.fill_mirror(["rte", "trec"], tmp_path, progress=lines.append)
    assert result["rte"] == result["trec"] == result["sick"] == "written"
    assert result["med"] == "skipped: no version on the hub is known"
    assert not (tmp_path / "datasets" / "joci").exists()
    assert len(lines) == len(result)
    info = json.loads((tmp_path / "datasets" / "trec" / "info.json").read_text())
    assert info["hub"] == {"id": "CogComp/trec", "config": None, "revision": SHA, "columns": {"label": "coarse_label"}}
    assert not list((tmp_path / "datasets").rglob("*.part"))
    for name in ("rte", "trec"):
        with pytest.warns(UserWarning, match="left out") if name == "rte" else nullcontext():
            online = tasks.load_with_provenance(name, 40, source="hub")
        monkeypatch.setenv("KLNORM_MIRROR", str(tmp_path))
        with pytest.warns(UserWarning, match="left out") if name == "rte" else nullcontext():
            mirrored = tasks.load_with_provenance(name, 40, source="mirror")
        assert mirrored[1]["checksums"] == online[1]["checksums"]
        assert mirrored[1]["revision"] == SHA


def test_filling_keeps_what_is_there(fake, tmp_path):
    add_task(fake, "mrpc")
    assert tasks.fill_mirror(["mrpc"], tmp_path) == {"mrpc": "written"}
    assert tasks.fill_mirror(["mrpc"], tmp_path) == {"mrpc": "kept"}
    assert tasks.fill_mirror(["mrpc"], tmp_path, overwrite=True) == {"mrpc": "written"}


def test_filling_refuses_what_it_cannot_fetch(fake, tmp_path):
    with pytest.raises(tasks.TaskError, match="ships with the library"):
        tasks.fill_mirror("topic_shift", tmp_path)
    with pytest.raises(tasks.TaskError, match="no version of 'mpqa' on the hub is known"):
        tasks.fill_mirror("mpqa", tmp_path)
    with pytest.raises(tasks.UnknownTaskError):
        tasks.fill_mirror("mprc", tmp_path)
