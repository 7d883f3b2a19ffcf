"""Tasks from a mirror folder: what is read, what is removed, what is refused."""

import hashlib
import json
import os
import shutil

import pytest

from klnorm_lib import tasks
from klnorm_lib.tasks.rows import key

TEXT = [n for n in tasks.names() if not tasks.spec(n).built_in and tasks.spec(n).kind != "audio"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A good film!", "agoodfilm"),
        ("Line<br />break 2", "linebreak2"),
        ("café", "caf"),
        ("iPhone 15，好", "iphone15"),
        ("好，坏", "好坏"),
        ("?!", "?!"),
    ],
    ids=["letters", "break", "accent", "two scripts", "no latin", "marks"],
)
def test_rows_of_registered_tasks_are_compared_as_the_records_were(text, expected):
    assert key((text, text)) == f"{expected}\n{expected}"


@pytest.mark.parametrize("name", TEXT)
def test_every_task_loads(mirror, name):
    mirror.task(name)
    task = tasks.spec(name)
    data, facts = tasks.load_with_provenance(name, size=50)
    assert set(data) == {"train", "validation", "test", *(f"ood/{k}" for k in task.ood)}
    assert (len(data["train"]), len(data["validation"])) == (40, 10)
    assert len(data["test"]) == 20 * len(task.test.mirror)
    for split in data:
        assert data[split].column_names == [*task.text_columns, "label"]
        assert facts["rows"][split] == len(data[split])
    if task.label_names:
        assert data["test"].features["label"].names == list(task.label_names)
    for k, ood in task.ood.items():
        assert data[f"ood/{k}"].features["label"].names == list(ood.label_names)
    assert facts["source"] == "mirror"
    assert facts["size"] == 50
    assert set(facts["checksums"]) == set(data)
    json.dumps(facts)


def test_subsets_of_a_task_are_nested(mirror):
    mirror.task("trec", train=300)
    small, large = tasks.load("trec", 60, split_seed=4), tasks.load("trec", 200, split_seed=4)
    for split in ("train", "validation"):
        assert set(small[split]["text"]) <= set(large[split]["text"])
    assert small["test"]["text"][:] == large["test"]["text"][:]


def test_split_seed_changes_train_only(mirror):
    mirror.task("rte", ood=1200)
    sums = [tasks.load_with_provenance("rte", 50, split_seed=s)[1]["checksums"] for s in (0, 1)]
    assert sums[0]["train"] != sums[1]["train"]
    assert {k: v for k, v in sums[0].items() if k not in ("train", "validation")} == {
        k: v for k, v in sums[1].items() if k not in ("train", "validation")
    }


def test_out_of_domain_sets_hold_at_most_a_thousand_rows(mirror):
    mirror.task("rte", ood=1500)
    assert all(len(data) == 1000 for split, data in tasks.load("rte", 50).items() if split.startswith("ood/"))


def test_overlaps_are_removed_and_counted(mirror):
    mirror.task("snli")
    task = tasks.spec("snli")
    sick = task.ood["sick"]
    mirror.write(
        task.data,
        {
            "train": ([f"text {i}" for i in range(60)] + ["Text 0!", "In the TEST."], [i % 3 for i in range(62)]),
            "test": (["in the test", *[f"other {i}" for i in range(9)]], [i % 3 for i in range(10)]),
        },
    )
    mirror.write(sick.data, {"test": (["TEXT, 1", "in the test!", "fresh", "fresh."], [0, 1, 2, 2])})
    data, facts = tasks.load_with_provenance("snli")
    assert facts["removed"] == {"train rows also in test": 1, "train rows repeated": 1}
    assert data["ood/sick"]["premise"][:] == ["fresh"]
    assert facts["ood"]["sick"]["removed_overlap"] == 2
    assert facts["ood"]["sick"]["removed_repeats"] == 1
    keys = {s: {key(tuple(row)) for row in zip(*(data[s][c] for c in task.text_columns), strict=True)} for s in data}
    assert not keys["train"] & keys["validation"]
    for split in data:
        if split not in ("train", "validation"):
            assert not (keys["train"] | keys["validation"]) & keys[split]


def test_overlap_removal_does_not_depend_on_size(mirror):
    mirror.task("snli")
    sick = tasks.spec("snli").ood["sick"]
    mirror.write(sick.data, {"test": ([f"snli train row number {i}" for i in range(50)] + ["fresh"], [0, 1, 2] * 17)})
    assert tasks.load("snli", 20)["ood/sick"].num_rows == tasks.load("snli")["ood/sick"].num_rows == 1


def test_originals_of_edited_reviews_are_not_trained_on(mirror):
    mirror.task("imdb")
    cad = tasks.spec("imdb").ood["cad_imdb"].data
    texts = ["Imdb train row<br />number 7", "unrelated"]
    mirror.write(cad, {"test": (texts, [0, 1]), "test_revised": (["edited one", "edited two"], [1, 0])})
    _, facts = tasks.load_with_provenance("imdb")
    assert facts["removed"] == {"train rows that are originals of out-of-domain rows": 1}


def test_imdb_is_capped_unless_the_mirror_was_filled_from_the_hub(mirror):
    mirror.task("imdb", train=1000)
    with pytest.raises(tasks.TaskError, match="at most 800"):
        tasks.load("imdb", 801)
    data = tasks.load("imdb")
    assert data["train"].num_rows + data["validation"].num_rows == 800
    data = tasks.spec("imdb").data
    rows = ([f"filled {i}" for i in range(1000)], [i % 2 for i in range(1000)])
    mirror.write(data, {"train": rows, "test": (["one", "two"], [0, 1])}, revision="abc")
    assert tasks.load("imdb", 900)["train"].num_rows == 720


def test_a_missing_out_of_domain_set_is_left_out_loudly(mirror):
    mirror.task("mr")
    shutil.rmtree(mirror.root / "datasets" / "mds_books")
    with pytest.warns(UserWarning, match="'multidomain_sentiment/books' is left out: no mirror has datasets/mds_books"):
        data, facts = tasks.load_with_provenance("mr", 50)
    assert "ood/multidomain_sentiment/books" not in data
    assert list(facts["ood_missing"]) == ["multidomain_sentiment/books"]


def test_labels_are_matched_by_name(mirror):
    data = tasks.spec("sst5").data
    order = ["very positive", "positive", "neutral", "negative", "very negative"]
    rows = ([f"row {i}" for i in range(50)], [i % 5 for i in range(50)])
    mirror.write(data, {"train": rows, "test": (["terrible"], [4])}, label_names=order)
    assert tasks.load("sst5")["test"]["label"][:] == [0]


def test_several_folders_are_searched_in_order(mirror, tmp_path, monkeypatch):
    mirror.task("mrpc")
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("KLNORM_MIRROR", os.pathsep.join([str(empty), str(tmp_path)]))
    assert tasks.load("mrpc", 50)["train"].num_rows == 40


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: (f / "train.parquet").write_bytes((f / "train.parquet").read_bytes()[:-50]),
            "train.parquet is trunc",
        ),
        (lambda f: (f / "train.parquet").unlink(), "train.parquet is missing although info.json lists it"),
        (lambda f: (f / "info.json").unlink(), "info.json is missing"),
        (lambda f: (f / "info.json").write_text('{"splits": {'), "info.json is not a readable description"),
        (lambda f: (f / "info.json").write_text("[]"), "info.json is not a readable description"),
    ],
)
def test_damaged_folders_are_refused(mirror, damage, message):
    damage(mirror.task("mrpc"))
    for source in ("auto", "mirror"):
        with pytest.raises(tasks.CorruptDataError, match=message):
            tasks.load("mrpc", 50, source=source)


def test_a_file_that_is_not_parquet_is_named_although_its_checksum_fits(mirror):
    folder = mirror.task("mrpc")
    (folder / "train.parquet").write_bytes(b"not parquet")
    info = json.loads((folder / "info.json").read_text())
    info["splits"]["train"]["sha256"] = hashlib.sha256(b"not parquet").hexdigest()
    (folder / "info.json").write_text(json.dumps(info))
    with pytest.raises(tasks.CorruptDataError, match="train.parquet is not a readable parquet file"):
        tasks.load("mrpc", 50)


def test_row_counts_are_checked(mirror):
    folder = mirror.task("mrpc")
    info = json.loads((folder / "info.json").read_text())
    info["splits"]["train"]["rows"] += 1
    (folder / "info.json").write_text(json.dumps(info))
    with pytest.raises(tasks.CorruptDataError, match="has 100 rows, info.json says 101"):
        tasks.load("mrpc", 50)


def test_missing_split_and_column(mirror):
    data = tasks.spec("mrpc").data
    mirror.write(data, {"train": (["a", "b"], [0, 1])})
    with pytest.raises(tasks.LayoutError, match="lists the splits train; validation is needed"):
        tasks.load("mrpc")
    cola = tasks.spec("cola").data
    mirror.write(cola, {"train": (["a", "b"], [0, 1]), "validation": (["c"], [0])}, label_column="gold")
    with pytest.raises(tasks.LayoutError, match=r"lacks \['gold'\]"):
        tasks.load("cola")


def test_labels_outside_the_range(mirror):
    data = tasks.spec("sst5").data
    rows = ([f"row {i}" for i in range(50)], [i % 5 for i in range(50)])
    mirror.write(data, {"train": rows, "test": (["x"], [-1])}, label_names=None)
    with pytest.raises(tasks.CorruptDataError, match=r"test.parquet, row 0: label -1 is outside the range"):
        tasks.load("sst5")


def test_other_labels_than_expected(mirror):
    data = tasks.spec("sst5").data
    rows = ([f"row {i}" for i in range(50)], [i % 5 for i in range(50)])
    mirror.write(data, {"train": rows, "test": (["x"], [1])}, label_names=list("abcde"))
    with pytest.raises(tasks.LayoutError, match="its labels are"):
        tasks.load("sst5")


def test_scores_outside_the_range(mirror):
    data = tasks.spec("stsb").data
    rows = ([f"row {i}" for i in range(50)], [i / 10 for i in range(49)] + [9.0])
    mirror.write(data, {"train": rows, "validation": (["x"], [1.0])})
    with pytest.raises(tasks.CorruptDataError, match="row 49: score 9.0 is outside the range 0.0 to 5.0"):
        tasks.load("stsb")


def test_size_larger_than_the_data(mirror):
    mirror.task("mrpc")
    with pytest.raises(tasks.TaskError, match="size 101 is larger than the data: there are 100 rows"):
        tasks.load("mrpc", 101)


@pytest.mark.parametrize("size", [0, -5, 2.5, True, "100"])
def test_size_that_is_no_count(size):
    with pytest.raises(tasks.TaskError, match="size must be a positive whole number"):
        tasks.load("topic_shift", size)


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_split_seed_that_is_no_seed(seed):
    with pytest.raises(tasks.TaskError, match="split_seed must be a whole number"):
        tasks.load("topic_shift", 50, split_seed=seed)


def test_unknown_source():
    with pytest.raises(tasks.TaskError, match="unknown source 'web'; choose one of auto, hub, mirror, built-in"):
        tasks.load("mrpc", source="web")


def test_real_tasks_are_never_replaced_by_built_in_ones(offline):
    with pytest.raises(tasks.TaskError, match="real data and has no built-in version"):
        tasks.load("mrpc", source="built-in")
    with pytest.raises(tasks.SourceUnavailableError, match="KLNORM_MIRROR is not set.*HF_HUB_OFFLINE"):
        tasks.load("mrpc")
    with pytest.raises(tasks.SourceUnavailableError, match="set it to a folder that holds datasets/mrpc"):
        tasks.load("mrpc", source="mirror")


def test_mirror_that_is_not_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("KLNORM_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(tasks.SourceUnavailableError, match="nowhere', which is not a folder"):
        tasks.load("mrpc")


def test_mirror_without_the_task(mirror):
    with pytest.raises(tasks.SourceUnavailableError, match="no folder of KLNORM_MIRROR .* holds datasets/mrpc"):
        tasks.load("mrpc", source="mirror")


def test_task_without_hub_version(offline):
    with pytest.raises(tasks.SourceUnavailableError, match="no version of 'mpqa' on the hub is known"):
        tasks.load("mpqa")
