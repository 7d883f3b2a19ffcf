"""A reader's own file as a task."""

import json

import pytest

from klnorm_lib import tasks


@pytest.fixture
def table(tmp_path):
    def write(name, rows, header="text,label"):
        path = tmp_path / name
        path.write_text("\n".join([header, *rows]) + "\n", "utf-8")
        return path

    return write


def rows(count=50, classes=("no", "yes")):
    return [f'"sentence {i}, with a comma",{classes[i % len(classes)]}' for i in range(count)]


def test_csv(table):
    path = table("mine.csv", rows())
    data, task, facts = tasks.from_file(path, text="text", label="label")
    assert {split: len(data[split]) for split in data} == {"train": 32, "validation": 8, "test": 10}
    assert task.name == "mine"
    assert task.label_names == ("no", "yes")
    assert task.kind == "classification"
    assert data["train"].features["label"].names == ["no", "yes"]
    assert sorted(data["test"]["label"]) == [0] * 5 + [1] * 5
    assert facts["source"] == "file"
    assert len(facts["files"]["mine.csv"]) == 64
    json.dumps(facts)


def test_the_test_set_does_not_follow_the_split_seed(table):
    path = table("mine.csv", rows())
    one, two = (tasks.from_file(path, split_seed=s, size=20)[2]["checksums"] for s in (0, 1))
    assert one["test"] == two["test"]
    assert one["train"] != two["train"]


def test_subsets_are_nested(table):
    path = table("mine.csv", rows(200))
    small, large = (tasks.from_file(path, size=n)[0] for n in (20, 100))
    assert set(small["train"]["text"]) <= set(large["train"]["text"])
    assert set(small["validation"]["text"]) <= set(large["validation"]["text"])


def test_jsonl_with_two_texts_and_other_names(tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"a": f"one {i}", "b": f"two {i}", "gold": i % 3}) for i in range(60)]
    path.write_text("\n".join(lines))
    data, task, _ = tasks.from_file(path, text="a", text_pair="b", label="gold")
    assert task.kind == "pair"
    assert task.label_names == ("0", "1", "2")
    assert data["train"].column_names == ["a", "b", "label"]


def test_scores_make_a_regression(table):
    data, task, _ = tasks.from_file(table("scores.csv", [f"sentence {i},{i / 7:.3f}" for i in range(40)]))
    assert task.kind == "regression"
    assert task.num_labels == 1
    assert data["train"].features["label"].dtype == "float32"


def test_repeats_are_used_once(table):
    _, _, facts = tasks.from_file(table("mine.csv", [*rows(40), "SENTENCE 1 with a comma,yes"]))
    assert facts["removed"] == {"rows repeated in the file": 1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (rows(20, ("yes",)), "every row has the label 'yes'; at least two classes"),
        ([*rows(20), "alone,maybe"], "label 'maybe' has a single row"),
        ([*rows(20), ",yes"], r"column 'text' is empty in row 21 \(counted from 1, header not counted\)"),
        ([*rows(20), "   ,yes"], "column 'text' is empty in row 21"),
        ([*rows(20), "text without label,"], "the label is missing in row 21"),
        ([f"sentence {i},label {i}" for i in range(60)], "60 different values in 60 rows; is it a text column"),
        ([], "has no rows"),
    ],
)
def test_bad_tables(table, lines, message):
    with pytest.raises(tasks.TaskError, match=message):
        tasks.from_file(table("bad.csv", lines))


def test_missing_column_lists_those_there_are(table):
    with pytest.raises(tasks.LayoutError, match="has no column 'review'; its columns are 'text', 'label'"):
        tasks.from_file(table("mine.csv", rows()), text="review")


def test_columns_must_differ(table):
    path = table("mine.csv", rows())
    with pytest.raises(tasks.TaskError, match="must be different columns"):
        tasks.from_file(path, text="text", text_pair="text")
    with pytest.raises(tasks.TaskError, match="cannot be called 'label'"):
        tasks.from_file(path, text="label", label="text")


def test_unreadable_files(tmp_path):
    with pytest.raises(tasks.TaskError, match="there is no file"):
        tasks.from_file(tmp_path / "none.csv")
    (tmp_path / "mine.xlsx").write_bytes(b"")
    with pytest.raises(tasks.TaskError, match="use a file that ends in .csv"):
        tasks.from_file(tmp_path / "mine.xlsx")
    (tmp_path / "cut.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "la')
    with pytest.raises(tasks.CorruptDataError, match="cut.jsonl is not a readable jsonl file"):
        tasks.from_file(tmp_path / "cut.jsonl")
    (tmp_path / "latin.csv").write_bytes("text,label\ncaf\xe9,1\n".encode("latin-1"))
    with pytest.raises(tasks.CorruptDataError, match="check that it is UTF-8"):
        tasks.from_file(tmp_path / "latin.csv")


@pytest.mark.parametrize("fraction", [0, 1, -0.2])
def test_test_fraction(table, fraction):
    with pytest.raises(tasks.TaskError, match="test_fraction must lie between 0 and 1"):
        tasks.from_file(table("mine.csv", rows()), test_fraction=fraction)


def test_size_larger_than_what_is_left(table):
    with pytest.raises(tasks.TaskError, match="size 45 is larger than the data: there are 40 rows"):
        tasks.from_file(table("mine.csv", rows()), size=45)
