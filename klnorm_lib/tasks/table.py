"""A table as a file holds it: the columns asked for, values as they are written, and where each row stands."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import CorruptDataError, LayoutError

# UTF-32 stands first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    codecs.BOM_UTF8: "utf-8",
}
_OTHER_FORMATS = {
    b"PK\x03\x04": "a spreadsheet or a zip archive",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"\x1f\x8b": "a gzip archive",
    b"PAR1": "a parquet file",
}


@dataclass(frozen=True)
class Table:
    """Columns of one file; ``lines[i]`` is the line on which row i begins, where the file has lines.

    ``class_names`` are the names of a column of class ids, where the file has them.
    """

    name: str
    columns: dict[str, list[Any]]
    lines: Sequence[int] | None = None
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def where(self, rows: Iterable[int]) -> str:
        """Up to five rows as a message names them, such as "rows 3, 7 (lines 4, 8)"; rows are counted from 1."""
        rows = list(rows)
        several, more = "s" if len(rows) > 1 else "", ", ..." if len(rows) > 5 else ""
        found = f"row{several} {', '.join(str(i + 1) for i in rows[:5])}{more}"
        if self.lines is None:
            return found
        return f"{found} (line{several} {', '.join(str(self.lines[i]) for i in rows[:5])}{more})"


def decode(content: bytes, name: str) -> str:
    """The text of a file: UTF-8, or what the mark at its beginning says. Raises ``CorruptDataError`` for another."""
    for start, what in _OTHER_FORMATS.items():
        if content.startswith(start):
            raise CorruptDataError(f"{name} is {what}, whatever its name says; export it as CSV in UTF-8.")
    mark = next((mark for mark in _MARKS if content.startswith(mark)), b"")
    try:
        text = content[len(mark) :].decode(_MARKS.get(mark, "utf-8")).removeprefix("\ufeff")  # some write it twice
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CorruptDataError(
            f"{name} is not UTF-8: byte 0x{error.object[error.start]:02x} in line {line}; save it as UTF-8 "
            '(spreadsheets call this format "CSV UTF-8").'
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise CorruptDataError(
            f"{name} has a NUL character in line {line}; if it is UTF-16, save it as UTF-8, otherwise delete the "
            "character."
        )
    return text


def check_columns(name: str, found: Sequence[str], wanted: Sequence[str], hint: str = "") -> None:
    """Raise ``LayoutError`` unless every column of ``wanted`` is there, once."""
    missing = [c for c in wanted if c not in found]
    if missing:
        raise LayoutError(
            f"{name} has no column {', '.join(map(repr, missing))}; its columns are "
            f"{', '.join(map(repr, found)) or 'none'}. {hint}Name the columns to use: text (and text_pair) or "
            "audio, and label."
        )
    twice = [c for c in wanted if found.count(c) > 1]
    if twice:
        raise LayoutError(f"{name} has {found.count(twice[0])} columns called {twice[0]!r}; rename or delete one.")
