"""JSON: one object a line, an array of objects, or an object of columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from .errors import CorruptDataError, LayoutError
from .table import Table, check_columns, decode

_FORMS = (
    'It must hold one object a line, {"text": "...", "label": "..."}, an array of such objects, or an object with one '
    "list per column."
)


_BLANKS = re.compile(r"[ \t\r\n]*")


class _Object(dict):
    """A JSON object that records which of its keys occurs twice."""

    twice: str | None = None


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        made.twice = next(name for name in names if names.count(name) > 1)
    return made


def read_json(content: bytes, name: str, wanted: Sequence[str]) -> Table:
    """The columns ``wanted`` of a JSON file: objects one after another, in an array, or columns.

    An object of columns has a list or a mapping from row to value for each; the rows may also stand under a key
    "data", or below their names as what pandas writes. Raises ``CorruptDataError`` with the line for what is not JSON
    and ``LayoutError`` for other forms.
    """
    found = list(_values(decode(content, name), name))
    if not found:
        raise CorruptDataError(f"{name} is empty.")
    if len(found) > 1:
        return _of_rows(name, [value for _, value in found], wanted, [line for line, _ in found])
    ((line, value),) = found
    if isinstance(value, dict):
        return _of_object(name, value, wanted)
    return _of_rows(name, value, wanted) if isinstance(value, list) else _of_rows(name, [value], wanted, [line])


def _values(text: str, name: str) -> Iterator[tuple[int, Any]]:
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    position, line = 0, 1
    while True:
        start = _BLANKS.match(text, position).end()
        line += text.count("\n", position, start)
        if start == len(text):
            return
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            at, what = (error.lineno, error.msg) if isinstance(error, json.JSONDecodeError) else (line, error)
            raise CorruptDataError(
                f"{name} is not readable as JSON: line {at}, in the value that begins on line {line}: {what}. {_FORMS}"
            ) from error
        yield line, value
        line += text.count("\n", start, end)
        position = end


def _of_object(name: str, value: _Object, wanted: Sequence[str]) -> Table:
    if value.twice is not None:
        raise LayoutError(f"{name} has the key {value.twice!r} twice; rename or delete one.")
    inner = list(value.values())
    if set(wanted) <= set(value):
        columns = {column: value[column] for column in wanted}
        if all(isinstance(column, list) for column in columns.values()):
            return _of_columns(name, columns)
        if all(isinstance(column, dict) for column in columns.values()):
            return _of_mappings(name, columns)
        return _of_rows(name, [value], wanted, [1])
    data, columns = value.get("data"), value.get("columns")
    if isinstance(data, list) and isinstance(columns, list):
        bad = next((i for i, row in enumerate(data) if not isinstance(row, list) or len(row) != len(columns)), None)
        if bad is not None:
            raise LayoutError(
                f"{name}: row {bad + 1} of 'data' is not a list of {len(columns)} values, one per column."
            )
        check_columns(name, columns, wanted)
        return _of_rows(name, [_object(list(zip(columns, row, strict=True))) for row in data], wanted)
    if isinstance(data, list):
        return _of_rows(name, data, wanted)
    if isinstance(data, dict):
        return _of_object(name, data, wanted)
    if inner and all(isinstance(row, dict) for row in inner) and any(set(wanted) & set(row) for row in inner):
        return _of_rows(name, inner, wanted)
    check_columns(name, list(value), wanted, f"{_FORMS} ")
    raise AssertionError("unreachable: a wanted column is missing")


def _of_columns(name: str, columns: dict[str, list]) -> Table:
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{column!r} has {len(values)}" for column, values in columns.items())
        raise LayoutError(f"{name}: its columns differ in length: {lengths} values.")
    return _not_empty(Table(name, columns))


def _of_mappings(name: str, columns: dict[str, dict]) -> Table:
    keys = list(next(iter(columns.values())))
    for column, values in columns.items():
        twice = getattr(values, "twice", None)
        if twice is not None or set(values) != set(keys):
            odd = twice if twice is not None else min(set(values) ^ set(keys))
            raise LayoutError(f"{name}: row {odd!r} does not stand once in each of its columns; see {column!r}.")
    return _not_empty(Table(name, {column: [values[key] for key in keys] for column, values in columns.items()}))


def _of_rows(name: str, rows: Sequence[Any], wanted: Sequence[str], lines: Sequence[int] | None = None) -> Table:
    place = Table(name, {}, lines)
    names: dict[str, None] = {}
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise LayoutError(f"{name}: {place.where([i])} is not an object but {json.dumps(row)[:60]}. {_FORMS}")
        if row.twice is not None:
            raise LayoutError(f"{name}: {place.where([i])} has the key {row.twice!r} twice; rename or delete one.")
        names.update(dict.fromkeys(row))
    if rows:
        check_columns(name, list(names), wanted)
    return _not_empty(Table(name, {column: [row.get(column) for row in rows] for column in wanted}, lines))


def _not_empty(table: Table) -> Table:
    if not len(table):
        raise CorruptDataError(f"{table.name} has no rows.")
    return table
