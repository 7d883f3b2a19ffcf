"""What labels and texts of a reader's own table are taken for: names as written, scores, or an error with the row."""

import json

import pandas as pd
import pytest

from klnorm_lib import tasks


@pytest.fixture
def of(tmp_path):
    """The task of a file with these labels, a row of its own for each."""

    def read(labels, form="csv", texts=None):
        table = pd.DataFrame(
            {"text": texts or [f"text {i}" for i in range(len(labels))], "label": labels}, dtype=object
        )
        path = tmp_path / f"mine.{form}"
        if form == "csv":
            table.to_csv(path, index=False)
        else:
            path.write_text("\n".join(json.dumps(row) for row in table.to_dict("records")))
        data, task, _ = tasks.from_file(path)
        return data, task

    return read


NAMES = {
    "leading zeros": (["001", "002"], ("001", "002")),
    "one and zero one": (["1", "01"], ("01", "1")),
    "two ways to write a thousand": (["1e3", "1000.0"], ("1000.0", "1e3")),
    "plus": (["+1", "1"], ("+1", "1")),
    "numerical order": (["10", "9", "-1"], ("-1", "9", "10")),
    "whole numbers with a point": (["10.0", "9.0"], ("9.0", "10.0")),
    "many digits": (["12345678901234567890", "12345678901234567891"], ("12345678901234567890", "12345678901234567891")),
    "truth values": (["True", "False"], ("False", "True")),
    "capital truth values": (["TRUE", "FALSE"], ("FALSE", "TRUE")),
    "NA and others": (["NA", "null", "None", "nan", "N/A", "#N/A"], ("#N/A", "N/A", "NA", "None", "nan", "null")),
    "a class NA among whole numbers": (["1", "2", "NA"], ("1", "2", "NA")),
    "infinity as a name": (["inf", "finite"], ("finite", "inf")),
    "dates": (["2024-01-01", "2024-01-02"], ("2024-01-01", "2024-01-02")),
    "underscores": (["1_0", "10"], ("10", "1_0")),
    "digits of other scripts": (["１", "٢"], ("٢", "１")),
    "blanks at the ends": ([" yes", "yes ", "no"], ("no", "yes")),
    "commas": (["a, b", "c"], ("a, b", "c")),
    "brackets": (["[other]", "(none)", "{x"], ("(none)", "[other]", "{x")),
    "per cent": (["5%", "10%"], ("10%", "5%")),
    "versions among names": (["1.5", "two", "three"], ("1.5", "three", "two")),
}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize(("labels", "expected"), NAMES.values(), ids=NAMES)
def test_names_are_as_written(of, recwarn, labels, expected, form):
    data, task = of(labels * 12, form)
    assert task.label_names == expected
    assert task.kind == "classification"
    found = {row["text"]: task.label_names[row["label"]] for part in data.values() for row in part}
    assert found == {f"text {i}": label.strip() for i, label in enumerate(labels * 12)}
    assert not recwarn.list


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([10, 9], ("9", "10")),
        ([1.0, 2.0], ("1", "2")),
        ([1, 2.0], ("1", "2")),
        ([True, False], ("False", "True")),
        ([1, "1", "two"], ("1", "two")),
        ([True, 1], ("1", "True")),
    ],
    ids=str,
)
def test_values_of_json_that_are_no_texts(of, labels, expected):
    assert of(labels * 12, "jsonl")[1].label_names == expected


SCORES = {
    "points": ["0.5", "1.25", ".75", "-3."],
    "whole ones among them": ["1", "2", "2.5", "03"],
    "powers": ["1e-3", "2.5E2", "1e3", "0"],
}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("labels", SCORES.values(), ids=SCORES)
def test_numbers_that_are_not_all_whole_are_scores(of, labels, form):
    data, task = of(labels * 5, form)
    assert (task.kind, task.num_labels) == ("regression", 1)
    found = {row["text"]: row["label"] for part in data.values() for row in part}
    assert found == pytest.approx({f"text {i}": float(label) for i, label in enumerate(labels * 5)})


HALVES, WHOLE = [f"{i}.5" for i in range(20)], [str(i % 4) for i in range(20)]
ROW = r"in row 4 \((line \d)\)"
REFUSED = {
    "infinite": (HALVES, "inf", f"score inf {ROW} is not a finite number; correct or delete this row"),
    "minus infinity": (HALVES, "-Infinity", f"score -Infinity {ROW} is not a finite number"),
    "infinite among whole numbers": (WHOLE, "inf", f"score inf {ROW} is not a finite number"),
    "not a number": (HALVES, "nan", f"score nan {ROW} is not a finite number"),
    "not a number among whole": (WHOLE, "NaN", f"score NaN {ROW} is not a finite number"),
    "overflow": (HALVES, "1e999", f"score 1e999 {ROW} is not a finite number"),
    "overflow of 32 bits": (HALVES, "1e39", f"score 1e39 {ROW} is too large for 32-bit numbers"),
    "a word among scores": (HALVES, "n/a", f"label 'n/a' {ROW} is not a number, and others are, such as 0.5"),
    "NA among scores": (HALVES, "NA", f"label 'NA' {ROW} is not a number"),
    "decimal comma": (HALVES, "1,5", f"label '1,5' {ROW} has a comma; write a score with a decimal point"),
    "decimal comma among whole numbers": (WHOLE, "1,5", f"label '1,5' {ROW} has a comma"),
    "thousands": (HALVES, "1,000", f"label '1,000' {ROW} has a comma"),
    "a list": (WHOLE, "['joy', 'fear']", r"row 4 \(line \d\): the label is a list .* give one label a row"),
    "one-hot": (
        WHOLE,
        "[0, 1, 0]",
        r"row 4 \(line \d\): the label is a list \(\[0, 1, 0\]\); several labels",
    ),
    "one-hot of numpy": (WHOLE, "[0 1 0]", r"row 4 \(line \d\): the label is a list"),
    "a tuple": (WHOLE, "('a', 'b')", r"row 4 \(line \d\): the label is a list"),
    "empty": (WHOLE, "", f"label is missing {ROW}; fill in or delete this row"),
    "blank": (WHOLE, " \u00a0", f"label is missing {ROW}"),
}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize(("labels", "bad", "message"), REFUSED.values(), ids=REFUSED)
def test_a_label_that_is_refused_names_its_row(of, labels, bad, message, form):
    with pytest.raises(tasks.CorruptDataError, match=f"mine.{form}.*{message}"):
        of([*labels[:3], bad, *labels[4:]], form)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            ["joy", "fear"],
            r"row 4 \(line 4\): the label is a list \(\['joy', 'fear'\]\); several labels a row are not",
        ),
        (["joy"], r"row 4 \(line 4\): the label is a list"),
        ([], r"row 4 \(line 4\): the label is a list"),
        ({"joy": 1}, r"row 4 \(line 4\): the label is a mapping .* give one label a row"),
        (None, r"the label is missing in row 4 \(line 4\)"),
        (float("nan"), r"the label is missing in row 4 \(line 4\)"),
        (float("inf"), r"score inf in row 4 \(line 4\) is not a finite number"),
        (10**400, r"in row 4 \(line 4\) is not a finite number"),
        ("\ud83d", r"row 4 \(line 4\): column 'label' holds half a character"),
    ],
    ids=["list", "list of one", "empty list", "mapping", "null", "NaN", "Infinity", "huge", "surrogate"],
)
def test_a_label_of_json_that_is_refused(of, bad, message):
    with pytest.raises(tasks.CorruptDataError, match=message):
        of([*map(int, WHOLE[:3]), bad, *map(int, WHOLE[4:])], "jsonl")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (["a", "good", "film"], r"row 4 \(line 4\): column 'text' holds a list .* and not a text; join its parts"),
        ({"de": "gut"}, r"row 4 \(line 4\): column 'text' holds a mapping"),
        (3, r"row 4 \(line 4\): column 'text' holds a number \(3\) and not a text"),
        (0.5, r"row 4 \(line 4\): column 'text' holds a number"),
        (True, r"row 4 \(line 4\): column 'text' holds a truth value \(True\) and not a text"),
        (None, r"column 'text' is empty in row 4 \(line 4\)"),
        (float("nan"), r"column 'text' is empty in row 4 \(line 4\)"),
        ("\u3000\n", r"column 'text' is empty in row 4 \(line 4\)"),
        ("half \udc00", r"row 4 \(line 4\): column 'text' holds half a character"),
        ("a\0b", r"row 4 \(line 4\): column 'text' holds a NUL character"),
    ],
    ids=["tokens", "mapping", "number", "score", "truth", "null", "NaN", "blank", "surrogate", "NUL"],
)
def test_a_text_of_json_that_is_refused(of, bad, message):
    texts = [f"text {i}" for i in range(20)]
    with pytest.raises(tasks.CorruptDataError, match=message):
        of(WHOLE, "jsonl", [*texts[:3], bad, *texts[4:]])


def test_bytes_and_dates_of_parquet_are_refused(tmp_path):
    path = tmp_path / "mine.parquet"
    texts = [f"text {i}" for i in range(20)]
    pd.DataFrame({"text": [t.encode() for t in texts], "label": WHOLE}).to_parquet(path)
    with pytest.raises(tasks.CorruptDataError, match="row 1: column 'text' holds bytes"):
        tasks.from_file(path)
    pd.DataFrame({"text": texts, "label": [b"a", b"b"] * 10}).to_parquet(path)
    with pytest.raises(tasks.CorruptDataError, match="row 1: the label is bytes"):
        tasks.from_file(path)
    pd.DataFrame({"text": texts, "label": [[0, 1], [1, 0]] * 10}).to_parquet(path)
    with pytest.raises(tasks.CorruptDataError, match="row 1: the label is a list .* give one label a row"):
        tasks.from_file(path)
    pd.DataFrame({"text": texts, "label": pd.to_datetime(["2024-01-01", "2024-01-02"] * 10)}).to_parquet(path)
    with pytest.raises(tasks.CorruptDataError, match="row 1: the label is a datetime .*a label is a text or a number"):
        tasks.from_file(path)


def test_one_score_for_all(of):
    with pytest.raises(tasks.TaskError, match="every row has the score 0.5"):
        of(["0.5"] * 20)


@pytest.mark.parametrize("form", ["{}", "{}.5%", "{} points", "1'000.{}", "{:,}"])
def test_as_many_labels_as_rows(of, form):
    with pytest.raises(tasks.TaskError, match="20 different values in 20 rows.*Scores are plain numbers that"):
        of([form.format(i) for i in range(20)])


def test_decimal_commas_everywhere(of):
    with pytest.raises(tasks.CorruptDataError, match=r"label '0,5' in rows 1, 2, 3, 4, 5, ... .* has a comma"):
        of([f"{i},5" for i in range(20)])


SLIPS = {
    "case": (["Good", "good", "bad"], "labels 'Good', 'good' differ only in case"),
    "blanks": (["very good", "very  good", "bad"], "labels 'very  good', 'very good' differ only in case, blanks"),
    "composition": (["caf\u00e9", "cafe\u0301", "bar"], r"labels 'cafe\\u0301', 'caf\\xe9' differ only"),
    "invisible": (
        ["good\u200b", "good", "bad"],
        r"labels 'good', 'good\\u200b' differ only in case",
    ),
    "bars": (
        ["joy", "fear", "joy|fear"],
        r"label 'joy\|fear' in row 3 \(line 4\) is taken as a class of its own",
    ),
    "commas": (["joy", "fear", "joy, fear"], "label 'joy, fear' in row 3 .* several labels a row are not supported"),
    "semicolons": (["joy", "fear", "fear;joy"], "label 'fear;joy' in row 3 .* besides 'fear', 'joy'"),
    "numbers": (["1", "2", "1;2"], "label '1;2' in row 3"),
}


@pytest.mark.parametrize(("labels", "message"), SLIPS.values(), ids=SLIPS)
def test_labels_that_may_be_slips_are_told_and_kept(of, labels, message):
    with pytest.warns(UserWarning, match=message) as told:
        task = of(labels * 12)[1]
    assert set(task.label_names) == set(labels)
    assert len(told) == 1
