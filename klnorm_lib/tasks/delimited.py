"""CSV and TSV: rows of fields, each field a text as it is written."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from .columns import NUMBER
from .errors import CorruptDataError, LayoutError
from .table import Table, check_columns, decode

Record = tuple[int, list[str]]  # the line on which it begins, its fields
_LINE_END = re.compile("\r\n|\r|\n")
_FOR_SPREADSHEETS = re.compile("sep=.?")  # a first line that tells them the separator
_HEADER = 100_000  # characters among which the header is looked for
_LONGEST = 2**31 - 1  # a field; the default of the csv module is 131,072 characters
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_QUOTING = (
    "A text with commas, quotation marks or line breaks must stand in quotation marks, and a quotation mark inside it "
    'must be written twice ("").'
)
_NO_HEADER = "The first line must hold the names of the columns. "


def read_csv(content: bytes, name: str, wanted: Sequence[str]) -> Table:
    """The columns ``wanted`` (the last one holds the labels) of a comma-separated file, quoted as RFC 4180 says.

    Every row must have as many fields as the header; further ones are left out where they are empty in all rows.
    Raises ``CorruptDataError`` for quotation marks that do not match and ``LayoutError`` for columns that do not.
    """
    text = decode(content, name)
    _check_separator(name, text, wanted, ",")
    try:  # blanks behind commas: `1, "good, but long"`
        return _table(_quoted(text, name, ",", skipinitialspace=True), name, wanted, ",", text)
    except (CorruptDataError, LayoutError) as error:
        try:  # a text that begins with a blank and a mark that belongs to it
            return _table(_quoted(text, name, ","), name, wanted, ",", text)
        except (CorruptDataError, LayoutError):
            raise error from None


def read_tsv(content: bytes, name: str, wanted: Sequence[str]) -> Table:
    """As ``read_csv`` for tabs: a line is a row, and quotation marks are marks as any other.

    Two forms that some programs write are understood: with a header in quotation marks the file is quoted as CSV is,
    and a field in quotation marks in which all others are doubled is taken without them.
    """
    text = decode(content, name)
    _check_separator(name, text, wanted, "\t")
    lines = _LINE_END.split(text)
    first = next((line for line in lines if line.strip()), "")
    if all(len(field) > 2 and field[0] == field[-1] == '"' for field in first.split("\t")):
        return _table(_quoted(text, name, "\t"), name, wanted, "\t", text)
    fields = ((i + 1, [_unquoted(field) for field in line.split("\t")]) for i, line in enumerate(lines) if line.strip())
    return _table(fields, name, wanted, "\t", text)


def _unquoted(field: str) -> str:
    inner = field[1:-1]
    doubled = len(field) > 2 and field[0] == field[-1] == '"' and '"' in inner and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if doubled else field


def _quoted(text: str, name: str, delimiter: str, skipinitialspace: bool = False) -> Iterator[Record]:
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=skipinitialspace
    )
    before, line = csv.field_size_limit(_LONGEST), 1
    try:
        for fields in reader:
            if len(fields) > 1 or "".join(fields).strip():
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        what = (
            "a quotation mark opens a text and is never closed"
            if "unexpected end" in str(error)
            else f"a quotation mark in line {reader.line_num} closes a text, and more text follows it"
            if "expected after" in str(error)
            else str(error)
        )
        raise CorruptDataError(f"{name}, row that begins on line {line}: {what}. {_QUOTING}") from error
    finally:
        csv.field_size_limit(before)


def _table(found: Iterator[Record], name: str, wanted: Sequence[str], delimiter: str, text: str) -> Table:
    records = list(found)
    if records and _FOR_SPREADSHEETS.fullmatch("".join(records[0][1])):
        del records[0]
    if not records:
        raise CorruptDataError(f"{name} is empty.")
    header = [field.strip() for field in records[0][1]]
    while header and not header[-1]:
        header.pop()
    check_columns(name, header, wanted, _NO_HEADER)
    rows = records[1:]
    if not rows:
        raise CorruptDataError(f"{name} has no rows: it has one line, which is read as the names of the columns.")
    _check_widths(name, rows, len(header), delimiter)
    label = header.index(wanted[-1])
    _check_swallowed(name, rows, len(header), label, delimiter, text)
    columns = {column: [fields[header.index(column)] for _, fields in rows] for column in wanted}
    return Table(name, columns, [line for line, _ in rows])


def _check_separator(name: str, text: str, wanted: Sequence[str], delimiter: str) -> None:
    """Raise ``LayoutError`` if the first line has the columns ``wanted`` between other separators than it should."""
    first = (line for line in _LINE_END.split(text[:_HEADER]) if line.strip() and not _FOR_SPREADSHEETS.fullmatch(line))
    header = next(first, "")
    between = {other: {field.strip(' "') for field in header.split(other)} for other in _SEPARATORS}
    for other, word in _SEPARATORS.items():
        if set(wanted) <= between[other] and not set(wanted) <= between[delimiter]:
            raise LayoutError(
                f"{name}: its columns are separated by {word} and not by {_SEPARATORS[delimiter]}. Save it with "
                f"{_SEPARATORS[delimiter]}, for example with pandas: pandas.read_csv({name!r}, sep={other!r}, "
                f"dtype=str, keep_default_na=False).to_csv('new{'.tsv' if delimiter == chr(9) else '.csv'}', "
                f"sep={delimiter!r}, index=False)."
            )


def _check_widths(name: str, rows: Sequence[Record], width: int, delimiter: str) -> None:
    wide = [i for i, (_, fields) in enumerate(rows) if any(field.strip() for field in fields[width:])]
    bad = wide or [i for i, (_, fields) in enumerate(rows) if len(fields) < width]
    if not bad:
        return
    line, fields = rows[bad[0]]
    others = f" ({len(bad)} rows in all)" if len(bad) > 1 else ""
    if delimiter == "\t":
        advice = "a text may hold neither tabs nor line breaks; save such a table as CSV or JSON lines"
    elif wide:
        advice = "put texts with commas in quotation marks"
    else:
        advice = "a comma is missing, or a text with line breaks is not in quotation marks"
    if all(fields[0].strip().isdecimal() and len(fields) == width + 1 for _, fields in rows):
        advice += ", or give the first column a name in the header if it numbers the rows"
    raise LayoutError(
        f"{name}: row {bad[0] + 1} (line {line}) has {len(fields)} field{'s'[: len(fields) != 1]}, the header has "
        f"{width}{others}: {advice}."
    )


def _check_swallowed(name: str, rows: Sequence[Record], width: int, label: int, delimiter: str, text: str) -> None:
    """Raise ``CorruptDataError`` for a row over several lines, each of which is a row of its own by fields and label.

    Two quotation marks that only open make one legal text of all that stands between them. Lines are rows if all have
    as many fields as the header, and at least two and half of them a label that rows of one line have, or a number
    where all of those are numbers. Labels are compared with the blanks around them: prose has one behind a comma.
    """
    lines = _LINE_END.split(text)
    starts = [line - 1 for line, _ in rows] + [len(lines)]
    if all(end - start == 1 for start, end in pairwise(starts)):
        return
    parts = [[line.split(delimiter) for line in lines[start:end] if line.strip()] for start, end in pairwise(starts)]

    def labels_in(fields: list[list[str]]) -> list[str]:
        return [found[label].strip('"') for found in fields if len(found) == width]

    known = {y for fields in parts if len(fields) == 1 for y in labels_in(fields)}
    scores = bool(known) and all(NUMBER.fullmatch(y.strip()) for y in known)
    for i, fields in enumerate(parts):
        found = labels_in(fields) if len(fields) > 1 else []
        alike = [y for y in found if y in known or (scores and NUMBER.fullmatch(y))]
        if len(found) == len(fields) and len(alike) >= max(2, len(fields) / 2):
            first, last = starts[i] + 1, starts[i] + len(fields)
            raise CorruptDataError(
                f"{name}: row {i + 1} begins with line {first} and ends with line {last}, and each of these looks "
                f"like a row of its own: a quotation mark opens a text and is closed lines later. "
                f"{_QUOTING} If one text has all these lines, save the table as JSON lines."
            )
