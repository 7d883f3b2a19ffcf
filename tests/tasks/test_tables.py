"""Tables as people's programs write them: what is read from each format, and what is refused where."""

import io
import json
import zipfile

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from klnorm_lib import tasks

TEXTS = [f"film number {i}" for i in range(20)]
LABELS = ["good", "bad"] * 10


@pytest.fixture
def load(tmp_path):
    """(text, label name) of every row of a file with this content, in any order."""

    def read(name, content, **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        data, task, _ = tasks.from_file(path, **options)
        column = task.text_columns[0]
        names = task.label_names or {y: y for part in data.values() for y in part["label"]}
        return sorted((row[column], names[row["label"]]) for part in data.values() for row in part)

    return read


def lines(texts=TEXTS, labels=LABELS, separator=",", end="\n", header="text,label"):
    rows = [header.replace(",", separator), *(f"{t}{separator}{y}" for t, y in zip(texts, labels, strict=True))]
    return "".join(row + end for row in rows)


def all_quoted(separator):
    return lines([f'"{t}"' for t in TEXTS], [f'"{y}"' for y in LABELS], separator, header='"text","label"')


EXPECTED = sorted(zip(TEXTS, LABELS, strict=True))
SAME = {
    "as it should be": ("a.csv", lines()),
    "byte order mark": ("a.csv", "\ufeff" + lines()),
    "two byte order marks": ("a.csv", "\ufeff\ufeff" + lines()),
    "utf-16 with its mark": ("a.csv", lines().encode("utf-16")),
    "utf-16 big endian with its mark": ("a.tsv", b"\xfe\xff" + lines(separator="\t").encode("utf-16-be")),
    "utf-32 with its mark": ("a.csv", lines().encode("utf-32")),
    "windows line ends": ("a.csv", lines(end="\r\n")),
    "old mac line ends": ("a.csv", lines(end="\r")),
    "windows line ends of a tsv": ("a.tsv", lines(separator="\t", end="\r\n")),
    "no line end at the end": ("a.csv", lines().strip()),
    "blank lines": ("a.csv", "\n" + lines(end="\n\n") + "  \n\n"),
    "blank lines of a tsv": ("a.tsv", "\n" + lines(separator="\t", end="\n\n") + "  \n"),
    "everything quoted": ("a.csv", all_quoted(",")),
    "tsv with everything quoted": ("a.tsv", all_quoted("\t")),
    "blanks behind commas": ("a.csv", lines(separator=", ")),
    "quoted behind blanks": ("a.csv", lines([f" {t}" for t in TEXTS], [f' "{y}"' for y in LABELS])),
    "a comma at every end": ("a.csv", lines(end=",\n").replace("label,", "label", 1)),
    "a comma at every end and in the header": ("a.csv", lines(end=",\n")),
    "a comma at the end of the first": ("a.csv", lines().replace("good\n", "good,\n", 1)),
    "many commas at the ends": ("a.csv", lines(end=",,, \n")),
    "a tab at every end": ("a.tsv", lines(separator="\t", end="\t\n")),
    "a line for spreadsheets": ("a.csv", "sep=,\n" + lines()),
    "capital ending": ("a.CSV", lines()),
    "json lines": ("a.jsonl", "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in EXPECTED)),
    "json lines with a mark": (
        "a.jsonl",
        "\ufeff" + "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in EXPECTED),
    ),
    "json lines, windows, blank lines": (
        "a.json",
        "".join(json.dumps({"text": t, "label": y}) + "\r\n\r\n" for t, y in EXPECTED),
    ),
    "json array": ("a.json", json.dumps([{"text": t, "label": y} for t, y in EXPECTED])),
    "json array with a mark": ("a.json", "\ufeff" + json.dumps([{"text": t, "label": y} for t, y in EXPECTED])),
    "json array as lines by name": ("a.jsonl", json.dumps([{"text": t, "label": y} for t, y in EXPECTED])),
    "json array, indented": ("a.json", json.dumps([{"text": t, "label": y} for t, y in EXPECTED], indent=2)),
    "objects, indented": ("a.json", "".join(json.dumps({"text": t, "label": y}, indent=2) + "\n" for t, y in EXPECTED)),
    "json columns": ("a.json", json.dumps({"text": TEXTS, "label": LABELS, "n": 20})),
    "json columns, indented": ("a.json", json.dumps({"text": TEXTS, "label": LABELS}, indent=1)),
    "a key data": ("a.json", json.dumps({"version": 1, "data": [{"text": t, "label": y} for t, y in EXPECTED]})),
    "columns in data": ("a.json", json.dumps({"data": {"text": TEXTS, "label": LABELS}})),
    "utf-16 json": ("a.json", json.dumps([{"text": t, "label": y} for t, y in EXPECTED]).encode("utf-16")),
    "more columns": (
        "a.json",
        json.dumps([{"id": i, "tags": ["x"], "text": t, "label": y} for i, (t, y) in enumerate(EXPECTED)]),
    ),
    **{
        f"pandas to_json {orient}": (
            "a.json",
            pd.DataFrame({"text": TEXTS, "label": LABELS}).to_json(orient=orient),
        )
        for orient in ("records", "columns", "index", "split", "table")
    },
}


@pytest.mark.parametrize(("name", "content"), SAME.values(), ids=SAME)
def test_the_same_rows_are_read_from(load, recwarn, name, content):
    assert load(name, content) == EXPECTED
    assert not recwarn.list


WRITTEN = {
    "commas": "good, but long",
    "quotation marks": 'he said "well, well" and left',
    "quoted whole": '"a quoted text"',
    "one mark": '"a text that begins with a mark',
    "inches": 'a 15" screen',
    "line breaks": "one line\nanother, longer\n\nand a last",
    "a tab": "before\tbehind",
    "backslash": 'a \\ and a \\" and \\n',
    "line separators of unicode": "one\u2028two\x85three\x0bfour",
    "NA": "NA",
    "number": "007",
    "truth": "True",
    "null": "null",
    "nan": "nan",
    "comment": "# no comment",
    "equals": "=1+1",
    "long": "word " * 60_000,
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("form", ["csv", "all quoted", "jsonl", "json", "parquet", "tsv"])
def test_a_text_comes_out_as_it_was_written(load, tmp_path, form, text):
    table = pd.DataFrame({"text": [*TEXTS, text], "label": [*LABELS, "good"]})
    if form == "csv":
        name, content = "a.csv", table.to_csv(index=False)
    elif form == "all quoted":
        name, content = "a.csv", table.to_csv(index=False, quoting=1)
    elif form == "tsv":
        if "\n" in text or "\t" in text:
            pytest.raises(tasks.LayoutError, load, "a.tsv", lines(table["text"], table["label"], "\t"))
            return
        name, content = "a.tsv", lines(table["text"], table["label"], "\t")
    elif form == "parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer)
        name, content = "a.parquet", buffer.getvalue()
    else:
        name, content = f"a.{form}", table.to_json(orient="records", lines=form == "jsonl")
    found = load(name, content)
    assert len(found) == 21
    assert (text.strip(), "good") in found


def test_a_mark_behind_a_blank_may_belong_to_the_text(load):
    texts = [f' "{text}" was it' for text in TEXTS]
    assert load("a.csv", lines(texts)) == sorted((t.strip(), y) for t, y in zip(texts, LABELS, strict=True))


def test_a_tsv_of_pandas_is_read_where_its_quoting_can_be_told(load):
    texts = ['he said "well" and left', '"quoted whole"', "plain", *TEXTS[3:]]
    content = pd.DataFrame({"text": texts, "label": LABELS}).to_csv(index=False, sep="\t")
    assert [text for text, _ in load("a.tsv", content)] == sorted(texts)


@pytest.mark.parametrize("marked", [(5,), (5, 12), (0, 1), (19,)], ids=str)
def test_marks_that_open_in_a_tsv_are_marks(load, marked):
    texts = [f'"{text}' if i in marked else text for i, text in enumerate(TEXTS)]
    assert load("a.tsv", lines(texts, separator="\t")) == sorted(zip(texts, LABELS, strict=True))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({5: '"film'}, r"row that begins on line 7: a quotation mark opens a text and is never closed"),
        ({5: '"film', 12: '"play'}, r"row that begins on line 7: a quotation mark in line 14 closes a text"),
        ({5: '"film', 12: 'a play of 15"'}, r"row 6 begins with line 7 and ends with line 14, and each of these looks"),
        ({5: '"film', 7: 'a play of 15"'}, r"row 6 begins with line 7 and ends with line 9"),
        ({5: '"film" I saw'}, r"begins on line 7: a quotation mark in line 7 closes a text, and more text follows it"),
        ({5: '"he said \\"no\\", ok"'}, r"begins on line 7: a quotation mark in line 7 closes .* written twice"),
        ({19: '"film'}, r"row that begins on line 21: a quotation mark opens a text and is never closed"),
    ],
    ids=["one", "two", "closed lines later", "closed two lines later", "closed too early", "backslashes", "last"],
)
def test_marks_that_do_not_match_in_a_csv_are_named(load, texts, message):
    with pytest.raises(tasks.CorruptDataError, match=message):
        load("a.csv", lines([texts.get(i, text) for i, text in enumerate(TEXTS)]))


def test_marks_that_do_not_match_are_found_among_scores(load):
    texts = [{5: f'"{text}', 7: f'{text}"'}.get(i, text) for i, text in enumerate(TEXTS)]
    with pytest.raises(tasks.CorruptDataError, match="row 6 begins with line 7 and ends with line 9"):
        load("a.csv", lines(texts, [f"{i}.5" for i in range(20)]))
    with pytest.raises(tasks.CorruptDataError, match="row 6 begins with line 7 and ends with line 9"):
        load("a.csv", lines(texts, separator=", "))
    with pytest.raises(tasks.CorruptDataError, match="row 6 begins with line 7 and ends with line 9"):
        load("a.csv", lines(texts, ["rare" if i == 6 else LABELS[i] for i in range(20)]))


def test_marks_that_do_not_match_are_found_in_a_quoted_tsv(load):
    texts = [{5: f'"{text}', 7: f'{text}"'}.get(i, text) for i, text in enumerate(TEXTS)]
    content = lines(texts, separator="\t", header='"text","label"')
    with pytest.raises(tasks.CorruptDataError, match="row 6 begins with line 7 and ends with line 9"):
        load("a.tsv", content)


def test_a_text_of_several_lines_is_not_taken_for_rows(load):
    for quoted in ("{},\nand more, 3\nand an end", "{}\n\n1, 2\n3", "{}, but\nlong", "acting, 1\nplot of {}, 2"):
        texts = [f'"{quoted}"'.format(text) for text in TEXTS]
        assert len(load("a.csv", lines(texts, ["1", "2"] * 10))) == 20
        some = [quoted if i % 5 else text for i, (quoted, text) in enumerate(zip(texts, TEXTS, strict=True))]
        assert len(load("a.csv", lines(some, ["1", "2"] * 10))) == 20


BAD_WIDTHS = {
    "a comma in every text": (
        lines([f"Well, {t}" for t in TEXTS]),
        r"row 1 \(line 2\) has 3 fields, the header has 2 \(20",
    ),
    "in one": (
        lines(["Well, a film", *TEXTS[1:]]),
        r"row 1 \(line 2\) has 3 fields, the header has 2: put texts with commas",
    ),
    "in the fourth, two": (
        lines([*TEXTS[:3], "Well, well, a film", *TEXTS[4:]]),
        r"row 4 \(line 5\) has 4 fields, the header has 2: put texts with commas in quotation marks",
    ),
    "after blank lines": ("\n\n" + lines(["Well, a film", *TEXTS[1:]]), r"row 1 \(line 4\) has 3 fields"),
    "after a text of two lines": (
        lines(['"two\nlines"', "Well, a film", *TEXTS[2:]]),
        r"row 2 \(line 4\) has 3 fields, the header has 2",
    ),
    "numbered rows": (
        lines([f"{i},{t}" for i, t in enumerate(TEXTS)]),
        "put texts with commas in quotation marks, or give the first column a name in the header",
    ),
    "cut off": (lines()[:-6], r"row 20 \(line 21\) has 1 field, the header has 2: a comma is missing"),
    "no label": (lines([*TEXTS[:19], "film\nfilm"]), r"row 20 \(line 21\) has 1 field, the header has 2"),
}


@pytest.mark.parametrize(("content", "message"), BAD_WIDTHS.values(), ids=BAD_WIDTHS)
def test_rows_wider_or_narrower_than_the_header(load, content, message):
    with pytest.raises(tasks.LayoutError, match=message):
        load("a.csv", content)


def test_a_tsv_with_a_tab_too_much(load):
    numbered = lines([f"{i}\t{text}" for i, text in enumerate(TEXTS)], separator="\t")
    with pytest.raises(tasks.LayoutError, match="or give the first column a name in the header if it numbers the rows"):
        load("a.tsv", numbered)
    with pytest.raises(tasks.LayoutError, match=r"row 3 \(line 4\) has 3 fields, the header has 2: a text may"):
        load("a.tsv", lines([*TEXTS[:2], "a\tb", *TEXTS[3:]], separator="\t"))


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.csv", lines())
    return buffer.getvalue()


REFUSED = {
    "semicolons": ("a.csv", lines(separator=";"), r"columns are separated by semicolons and not by commas.*sep=';'"),
    "semicolons and commas": ("a.csv", lines([f"Well, {t}" for t in TEXTS], separator=";"), "separated by semicolons"),
    "semicolons, quoted": ("a.csv", lines(separator=";", header='"text","label"'), "separated by semicolons"),
    "semicolons, announced": ("a.csv", "sep=;\n" + lines(separator=";"), "separated by semicolons"),
    "tabs in a csv": ("a.csv", lines(separator="\t"), "separated by tabs and not by commas"),
    "commas in a tsv": ("a.tsv", lines(), "separated by commas and not by tabs"),
    "bars": ("a.csv", lines(separator="|"), "separated by vertical bars"),
    "no header": (
        "a.csv",
        lines().split("\n", 1)[1],
        r"no column 'text', 'label'; .*The first line must hold",
    ),
    "header only": ("a.csv", "text,label\n", "a.csv has no rows"),
    "header only, tsv": ("a.tsv", "text\tlabel", "a.tsv has no rows"),
    "empty": ("a.csv", "", "a.csv is empty"),
    "blank": ("a.tsv", "\n \n", "a.tsv is empty"),
    "empty jsonl": ("a.jsonl", "", "a.jsonl is empty"),
    "blank json": ("a.json", "\ufeff \n", "a.json is empty"),
    "empty array": ("a.json", "[]", "a.json has no rows"),
    "empty columns": ("a.json", '{"text": [], "label": []}', "a.json has no rows"),
    "two columns of a name": (
        "a.csv",
        lines(header="text,label,label", labels=["a,b"] * 20),
        "2 columns called 'label'",
    ),
    "nul": ("a.csv", lines().replace("number 3", "number\0 3"), "NUL character in line 5"),
    "utf-16 without a mark": (
        "a.csv",
        lines().encode("utf-16-le"),
        "NUL character in line 1; if it is UTF-16",
    ),
    "latin-1": (
        "a.csv",
        lines(["café", *TEXTS[1:]]).encode("latin-1"),
        "is not UTF-8: byte 0xe9 in line 2; save",
    ),
    "windows-1252": (
        "a.tsv",
        lines([*TEXTS[:4], "a “b”", *TEXTS[5:]], separator="\t").encode("cp1252"),
        "0x93 in line 6",
    ),
    "latin-1 json": ("a.jsonl", '{"text": "café", "label": 1}'.encode("latin-1"), "is not UTF-8: byte 0xe9 in line 1"),
    "a spreadsheet": ("a.csv", zipped(), "a.csv is a spreadsheet or a zip archive"),
    "comma behind objects": (
        "a.jsonl",
        '{"text": "a", "label": 1},\n{"text": "b", "label": 2}',
        "line 1.*one object a line",
    ),
    "cut line": ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "la', "not readable as JSON: line 2"),
    "single quotes": ("a.jsonl", "{'text': 'a', 'label': 1}", "not readable as JSON: line 1"),
    "a trailing comma": ("a.json", '[{"text": "a", "label": 1},]', "not readable as JSON: line 1"),
    "lists": ("a.json", '[["a", 1], ["b", 2]]', r"row 1 is not an object but \[\"a\", 1\]"),
    "lists a line": ("a.jsonl", '{"text": "a", "label": 1}\n["b", 2]\n', r"row 2 \(line 2\) is not an object"),
    "texts": ("a.json", '["a", "b"]', 'row 1 is not an object but "a"'),
    "a number": ("a.json", "3", "row 1 .* is not an object but 3"),
    "one key twice": (
        "a.jsonl",
        '{"text": "a", "label": 1}\n{"text": "b", "label": 1, "label": 0}\n',
        r"row 2 \(line 2\) has the key 'label' twice",
    ),
    "one column twice": ("a.json", '{"text": ["a"], "label": [1], "text": ["b"]}', "has the key 'text' twice"),
    "columns of two lengths": ("a.json", '{"text": ["a", "b"], "label": [1]}', "'text' has 2, 'label' has 1 values"),
    "columns of two rows": ("a.json", '{"text": {"0": "a"}, "label": {"1": 1}}', "row '0' does not stand once in each"),
    "another key": (
        "a.json",
        '{"rows": [{"text": "a", "label": 1}]}',
        "no column 'text', 'label'; its columns are 'ro",
    ),
    "another column": (
        "a.jsonl",
        '{"text": "a", "gold": 1}\n' * 2,
        "no column 'label'; its columns are 'text', 'go",
    ),
    "split of two widths": ("a.json", '{"columns": ["text", "label"], "data": [["a", 1], ["b"]]}', "row 2 of 'data'"),
    "not a parquet": ("a.parquet", b"text,label\n", "a.parquet is not a readable parquet file"),
    "an empty parquet": ("a.parquet", b"", "a.parquet is not a readable parquet file"),
}


@pytest.mark.parametrize(("name", "content", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(load, name, content, message):
    with pytest.raises(tasks.TaskError, match=f"(?s){message}"):
        load(name, content)


def test_other_columns_may_have_one_name(load):
    content = lines([f"1,2,{t}" for t in TEXTS], header="x,x,text,label")
    assert load("a.csv", content) == EXPECTED


def parquet(columns, schema=None):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer)
    return buffer.getvalue()


NAMED = datasets.Features(
    {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["ugly", "good", "bad"])}
)


def test_class_names_of_a_parquet_file_that_datasets_wrote(tmp_path):
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_dict({"text": TEXTS, "label": [1, 2] * 10}, features=NAMED).to_parquet(path)
    data, task, _ = tasks.from_file(path)
    assert task.label_names == ("good", "bad")  # in the order of their ids; no row is "ugly"
    found = [(r["text"], task.label_names[r["label"]]) for part in data.values() for r in part]
    assert sorted(found) == EXPECTED


@pytest.mark.parametrize("bad", [-1, 3])
def test_an_id_without_a_name(tmp_path, bad):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": TEXTS, "label": [1, 2] * 9 + [1, bad]}, schema=NAMED.arrow_schema)
    pq.write_table(table, path)
    with pytest.raises(tasks.CorruptDataError, match=f"label id {bad} in row 20 has no name; the file names the ids"):
        tasks.from_file(path)


TYPES = {
    "categorical": pa.array(LABELS).dictionary_encode(),
    "large strings": pa.array(LABELS, pa.large_string()),
    "string views": pa.array(LABELS, pa.string_view()),
    "text categorical": pa.chunked_array([LABELS[:7], LABELS[7:]]),
}


@pytest.mark.parametrize("labels", TYPES.values(), ids=TYPES)
def test_types_of_parquet(load, labels):
    texts = pa.array(TEXTS).dictionary_encode() if isinstance(labels, pa.ChunkedArray) else TEXTS
    assert load("a.parquet", parquet({"text": texts, "label": labels})) == EXPECTED


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(25, 2), pa.string()],
    ids=["i8", "u64", "f32", "dec", "str"],
)
def test_whole_numbers_of_parquet_are_classes_by_their_value(load, kind):
    numbers = pa.array([10, 9] * 10, pa.int16()).cast(kind)
    found = load("a.parquet", parquet({"text": TEXTS, "label": numbers}))
    assert {label for _, label in found} == {"9", "10"}


def test_a_missing_value_of_parquet_is_named(load):
    numbers = pa.array([0, 1] * 9 + [None, 1], pa.int64())
    with pytest.raises(tasks.CorruptDataError, match="the label is missing in row 19; fill in or delete this row"):
        load("a.parquet", parquet({"text": TEXTS, "label": numbers}))
    with pytest.raises(tasks.CorruptDataError, match="column 'text' is empty in rows 1, 3; fill in or delete these"):
        load("a.parquet", parquet({"text": [None, "a", "", *TEXTS[3:]], "label": LABELS}))


def test_a_cut_parquet_file(load):
    content = parquet({"text": TEXTS, "label": LABELS})
    for cut in (content[:-20], content[:40], content[40:]):
        with pytest.raises(tasks.CorruptDataError, match="a.parquet is not a readable parquet file"):
            load("a.parquet", cut)
