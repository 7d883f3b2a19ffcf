"""A reader's own file as a task."""

import json
import re

import pandas as pd
import pytest

from klnorm_lib import tasks
from tests.cli import call


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
    path = table("mine.csv", [*rows(40), '"SENTENCE  1, with a comma ",yes'])
    with pytest.warns(UserWarning, match=r"mine.csv: 1 of 41 rows were left out because they repeat"):
        _, _, facts = tasks.from_file(path)
    assert facts["removed"] == {"rows repeated in the file": 1}


WORDS = "好坏新旧大小快慢冷"
DIFFERENT = {
    "chinese with a brand": [f"iPhone 15 {a}，{b}。" for a in WORDS for b in WORDS],
    "russian with a brand": [f"Телефон Samsung {i % 2} {chr(0x430 + i)}" for i in range(32)],
    "accents": [f"{i} {word}" for i in range(10) for word in ("cote", "coté", "côte", "côté")],
    "german": [f"in {word} {i}" for i in range(10) for word in ("Maßen", "Massen", "Masen")],
    "marks only": [f"good {i}{mark}" for i in range(10) for mark in ("", "!", "?", "...", " :)", " :(")],
    "emoji": [f"well {i} {mark}" for i in range(10) for mark in ("🙂", "🙁", "👍🏻", "👍🏿")],
    "signs": [f"{i} {a} 2 = 3" for i in range(10) for a in "+-*/<>"],
    "hindi": [f"{i} {word}" for i in range(10) for word in ("की", "का", "के", "कि")],
    "arabic": [f"{i} {word}" for i in range(10) for word in ("كتب", "كتبٌ", "كُتب")],
    "kana": [f"{i} {word}" for i in range(10) for word in ("はは", "ぱぱ", "ばば", "ハハ")],
    "not a word": [f"{mark * n}" for n in range(1, 11) for mark in "!?.♥"],
    "tags": [f"{i} {tag} more" for i in range(10) for tag in ("<br />", "", "<b>")],
    "turkish": [f"{i} {word}" for i in range(10) for word in ("sık", "sik")],
}


@pytest.mark.parametrize("texts", [pytest.param(texts, id=name) for name, texts in DIFFERENT.items()])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_rows_that_differ_in_any_letter_stay(tmp_path, recwarn, texts, ending):
    path = tmp_path / f"mine.{ending}"
    table = pd.DataFrame({"text": texts, "label": [i % 2 for i in range(len(texts))]})
    if ending == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=True)
    data, _, facts = tasks.from_file(path)
    assert sorted(text for split in data.values() for text in split["text"]) == sorted(texts)
    assert facts["removed"] == {}
    assert not recwarn.list


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Good film", "good  FILM"),
        ("caf\u00e9", "cafe\u0301"),
        ("好\u3000电影", "好 电影"),
        ("ΟΔΟΣ", "οδος"),
        ("a\u00a0b", "a b"),
    ],
    ids=["case and blanks", "composed", "wide blank", "sigma", "no-break space"],
)
def test_what_looks_the_same_is_one_row(tmp_path, one, other):
    texts = [*(f"text {i}" for i in range(20)), one, other]
    path = tmp_path / "mine.jsonl"
    pd.DataFrame({"text": texts, "label": [*[0, 1] * 10, 1, 1]}).to_json(path, orient="records", lines=True)
    with pytest.warns(UserWarning, match="1 of 22 rows were left out"):
        assert tasks.from_file(path)[2]["removed"] == {"rows repeated in the file": 1}


def test_contradicting_labels_are_told(table):
    first, second = (f'"sentence {i}, with a comma"' for i in (1, 2))
    lines = [*rows(40), f"{first},no", f"{first},yes", f"{second.title()},yes"]
    with pytest.warns(UserWarning, match="rows") as told:
        data, task, facts = tasks.from_file(table("mine.csv", lines))
    assert facts["removed"] == {"rows repeated in the file": 1, "rows repeated in the file with another label": 2}
    contrary, repeated = (str(w.message) for w in told)
    assert "2 rows repeat the text of an earlier row with a different label; the first label was kept" in contrary
    assert "1 of 43 rows were left out because they repeat the text and the label" in repeated
    kept = {row["text"]: task.label_names[row["label"]] for split in data.values() for row in split}
    assert (kept["sentence 1, with a comma"], kept["sentence 2, with a comma"]) == ("yes", "no")


def test_a_text_with_every_label_is_counted(table):
    lines = [f"same text,{i % 2}" for i in range(10)] + [f"text {i},{i % 2}" for i in range(20)]
    with pytest.warns(UserWarning, match="rows") as told:
        removed = tasks.from_file(table("mine.csv", lines))[2]["removed"]
    assert [str(w.message)[:17] for w in told] == ["mine.csv: 5 rows ", "mine.csv: 4 of 30"]
    assert removed == {"rows repeated in the file": 4, "rows repeated in the file with another label": 5}


def test_a_pair_is_repeated_when_both_texts_are(table):
    lines = [f"one {i % 10},two {i % 3},{i % 2}" for i in range(30)]
    facts = tasks.from_file(table("pairs.csv", lines, "a,b,label"), "a", "b")[2]
    assert facts["removed"] == {}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (rows(20, ("yes",)), "every row has the label 'yes'; at least two classes"),
        ([*rows(20), "alone,maybe"], "label 'maybe' has a single row"),
        ([*rows(20), ",yes"], r"column 'text' is empty in row 21 \(line 22\); fill in or delete this row"),
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
    with pytest.raises(tasks.TaskError, match="there is no file .*none.csv': it is not there; check the path"):
        tasks.from_file(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(tasks.TaskError, match="folder.csv': it is a folder"):
        tasks.from_file(tmp_path / "folder.csv")
    (tmp_path / "mine.xlsx").write_bytes(b"")
    with pytest.raises(tasks.TaskError, match="use a file that ends in .csv"):
        tasks.from_file(tmp_path / "mine.xlsx")
    (tmp_path / "cut.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "la')
    with pytest.raises(tasks.CorruptDataError, match="cut.jsonl is not readable as JSON: line 2"):
        tasks.from_file(tmp_path / "cut.jsonl")
    (tmp_path / "latin.csv").write_bytes("text,label\ncaf\xe9,1\n".encode("latin-1"))
    with pytest.raises(tasks.CorruptDataError, match="latin.csv is not UTF-8: byte 0xe9 in line 2"):
        tasks.from_file(tmp_path / "latin.csv")


@pytest.mark.parametrize("fraction", [0, 1, -0.2])
def test_test_fraction(table, fraction):
    with pytest.raises(tasks.TaskError, match="test_fraction must lie between 0 and 1"):
        tasks.from_file(table("mine.csv", rows()), test_fraction=fraction)


def test_size_larger_than_what_is_left(table):
    with pytest.raises(tasks.TaskError, match="size 45 is larger than the data: mine.csv has 50 rows, 10 of them for"):
        tasks.from_file(table("mine.csv", rows()), size=45)


@pytest.mark.parametrize("classes", [2, 3, 5, 12])
def test_a_file_that_is_too_small_says_how_many_rows_it_needs(table, classes):
    def stars(count):
        return table("stars.csv", [f"text {i},{1 + i % classes}" for i in range(count)])

    few = 3 * classes
    with pytest.raises(tasks.TaskError, match=rf"stars.csv has {few} rows; {classes} classes need at least") as told:
        tasks.from_file(stars(few))
    with pytest.raises(tasks.TaskError, match=rf"stars.csv has {few} rows; {classes} classes need at least"):
        tasks.from_file(stars(few), size=few - classes)  # no size would do
    least = int(re.search(r"at least (\d+) rows", str(told.value))[1])
    assert len(tasks.from_file(stars(least))[0]["validation"]) == classes
    with pytest.raises(tasks.TaskError, match="classes need at least"):
        tasks.from_file(stars(least - 1))


def test_too_few_scores(table):
    with pytest.raises(tasks.TaskError, match="add rows"):
        tasks.from_file(table("scores.csv", [f"text {i},{i + 0.5}" for i in range(4)]))


def test_a_warning_reaches_the_screen_of_the_command(table, tmp_path):
    path = table("mine.csv", [*(f"same text,{i % 2}" for i in range(10)), *(f"text {i},{i % 2}" for i in range(30))])
    options = ["--label", "label", "--method", "frozen", "--encoder", "tf-idf", "--records", tmp_path / "r.jsonl"]
    told = call("run", "--data", path, "--text", "text", *options).stderr
    assert "Note: mine.csv: 5 rows repeat the text of an earlier row with a different label" in told
    assert "Note: mine.csv: 4 of 40 rows were left out" in told
