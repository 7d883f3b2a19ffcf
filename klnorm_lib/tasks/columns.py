"""What the columns of a reader's own table mean: texts, and class names or scores."""

from __future__ import annotations

import ast
import math
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sized
from decimal import Decimal
from typing import Any

import numpy as np

from .errors import CorruptDataError, TaskError
from .rows import exact_key
from .table import Table

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf(inity)?)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_BETWEEN_LABELS = re.compile(r"\s*[|;,/]\s*")
_KINDS = {
    bool: "a truth value",
    (int, float, Decimal): "a number",
    bytes: "bytes",
    (list, str): "a list",  # a text is one that looks like a list
    dict: "a mapping",
}


def texts_of(table: Table, column: str, what: str = "text") -> list[str]:
    """The texts of a column without blanks at their ends.

    Raises ``CorruptDataError`` that names rows where a text is missing, empty or something else than a text (a number
    of JSON or parquet, a list of tokens); ``what`` is what the column should hold.
    """
    values = table.columns[column]
    for row, value in enumerate(values):
        if not isinstance(value, str) and not _missing(value):
            advice = "; join its parts to one text" if isinstance(value, list) and what == "text" else ""
            raise CorruptDataError(
                f"{table.name}, {table.where([row])}: column {column!r} holds {_kind(value)} ({_short(value)}) and not "
                f"a {what}{advice}."
            )
    texts = ["" if _missing(value) else value.strip() for value in values]
    empty = [row for row, text in enumerate(texts) if not text]
    if empty:
        raise CorruptDataError(
            f"{table.name}: column {column!r} is empty in {table.where(empty)}; fill in or delete {_these(empty)}."
        )
    _check_characters(table, column, texts)
    return texts


def labels_of(table: Table, column: str) -> tuple[list[int] | list[float], tuple[str, ...] | None]:
    """Class ids and names of a column, or scores and ``None`` if its values are numbers and not all whole.

    Names are as written, without blanks at their ends; they are in numerical order if all are numbers, in the order of
    the file if it names its class ids, and sorted otherwise. Raises ``TaskError`` for one class only and
    ``CorruptDataError`` that names rows where the label is missing, a list or a mapping, or no finite number among
    numbers.
    """
    values = table.columns[column]
    for row, value in enumerate(values):
        if isinstance(value, list | dict) or (isinstance(value, str) and _is_literal_list(value)):
            raise CorruptDataError(
                f"{table.name}, {table.where([row])}: the label is {_kind(value)} ({_short(value)}); several labels a "
                "row are not supported: give one label a row."
            )
        if not isinstance(value, str | bool | int | float | Decimal) and value is not None:
            raise CorruptDataError(
                f"{table.name}, {table.where([row])}: the label is {_kind(value)} ({_short(value)}); a label is a text "
                "or a number."
            )
    missing = [row for row, value in enumerate(values) if _missing(value) or not str(value).strip()]
    if missing:
        raise CorruptDataError(
            f"{table.name}: the label is missing in {table.where(missing)}; fill in or delete {_these(missing)}."
        )
    if column in table.class_names:
        return _named_ids(table, values, table.class_names[column])
    written = [_written(value) for value in values]
    _check_characters(table, column, written)
    numbers = [_number(value) for value in values]
    if any(number is not None and math.isfinite(number) for number in numbers):
        _check_numbers(table, written, numbers)
        if None not in numbers:
            if any(number != math.floor(number) for number in numbers):
                return _scores(table, written, numbers), None
            order = sorted(set(zip(numbers, written, strict=True)))
            return _classes(table, written, tuple(name for _, name in order))
    return _classes(table, written, tuple(sorted(set(written))))


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def _these(rows: Sized) -> str:
    return "these rows" if len(rows) > 1 else "this row"


def _kind(value: Any) -> str:
    return next((kind for types, kind in _KINDS.items() if isinstance(value, types)), f"a {type(value).__name__}")


def _short(value: Any) -> str:
    shown = value if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _check_characters(table: Table, column: str, texts: list[str]) -> None:
    """Half a character, such as an escaped surrogate of JSON, cannot be stored as UTF-8; NUL ends a text elsewhere."""
    for row, text in enumerate(texts):
        if "\0" in text:
            raise CorruptDataError(
                f"{table.name}, {table.where([row])}: column {column!r} holds a NUL character; delete the character."
            )
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise CorruptDataError(
                f"{table.name}, {table.where([row])}: column {column!r} holds half a character (a surrogate without "
                "its other half); correct or delete the row."
            )


def _is_literal_list(label: str) -> bool:
    """Whether a label is a list that was written as a text, such as "['joy', 'fear']" or "[0 1 0]"."""
    label = label.strip()
    if not label or label[0] not in "[({" or label[-1] not in "])}":
        return False
    if re.fullmatch(r"\[[\d\s.,]*\]", label):
        return True
    try:
        return isinstance(ast.literal_eval(label), list | tuple | set | dict)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    whole = isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value)
    return str(int(value) if whole else value)


def _number(value: Any) -> float | None:
    """The number that a label is, infinite or not a number included; ``None`` for a name."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and not (NUMBER.fullmatch(value.strip()) or _NOT_FINITE.fullmatch(value.strip())):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _check_numbers(table: Table, written: list[str], numbers: list[float | None]) -> None:
    """Raise ``CorruptDataError`` for what cannot stand in a column of numbers."""
    names = [row for row, number in enumerate(numbers) if number is None]
    commas = [row for row in names if _DECIMAL_COMMA.fullmatch(written[row])]
    if names and len(commas) == len(names):
        _refuse_commas(table, written, commas)
    scores = {n for n in numbers if n is not None and math.isfinite(n) and not n.is_integer()}
    if names and len(scores) >= len({written[row] for row in names}):
        raise CorruptDataError(
            f"{table.name}: the label {written[names[0]]!r} in {table.where(names)} is not a number, and others are, "
            f"such as {min(scores)}. Correct or delete {_these(names)}; if the labels are classes, give all of them "
            "names that are not numbers."
        )
    infinite = [row for row, number in enumerate(numbers) if number is not None and not math.isfinite(number)]
    if infinite and not names:
        raise CorruptDataError(
            f"{table.name}: score {_short(written[infinite[0]])} in {table.where(infinite)} is not a finite number; "
            f"correct or delete {_these(infinite)}."
        )


def _refuse_commas(table: Table, written: list[str], rows: list[int]) -> None:
    raise CorruptDataError(
        f"{table.name}: the label {written[rows[0]]!r} in {table.where(rows)} has a comma; write a score with a "
        "decimal point and without separators of thousands. If these are several labels, give one label a row."
    )


def _scores(table: Table, written: list[str], numbers: list[float]) -> list[float]:
    with np.errstate(over="ignore"):
        large = np.flatnonzero(~np.isfinite(np.asarray(numbers, np.float32)))
    if len(large):
        raise CorruptDataError(
            f"{table.name}: score {written[large[0]]} in {table.where(large)} is too large for 32-bit numbers; scale "
            "the scores."
        )
    if len(set(numbers)) < 2:
        raise TaskError(f"{table.name}: every row has the score {written[0]}; nothing can be learned from one score.")
    return numbers


def _named_ids(table: Table, values: list, names: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
    outside = [row for row, value in enumerate(values) if not isinstance(value, int) or not 0 <= value < len(names)]
    if outside:
        raise CorruptDataError(
            f"{table.name}: the label id {values[outside[0]]!r} in {table.where(outside)} has no name; the file names "
            f"the ids 0 to {len(names) - 1}. Rows with a hidden label (-1) must be deleted."
        )
    used = set(values)
    kept = [i for i in range(len(names)) if i in used]  # a class without rows cannot be learned
    return _classes(table, [names[value] for value in values], tuple(names[i] for i in kept))


def _classes(table: Table, written: list[str], names: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
    if len(names) < 2:
        raise TaskError(f"{table.name}: every row has the label {names[0]!r}; at least two classes are needed.")
    commas = [row for row, label in enumerate(written) if _DECIMAL_COMMA.fullmatch(label)]
    if len(commas) == len(written):
        _refuse_commas(table, written, commas)
    if len(names) >= 10 and len(names) > len(written) / 3:  # a class needs three rows
        raise TaskError(
            f"{table.name}: the label column has {len(names)} different values in {len(written)} rows; is it a text "
            "column? Name the column of labels as label. Scores are plain numbers that are not all whole (divide whole "
            "ones by 10, for example), with a decimal point and without signs such as %."
        )
    _warn_of_names(table, written, names)
    ids = {name: i for i, name in enumerate(names)}
    return [ids[label] for label in written], names


def _warn_of_names(table: Table, written: list[str], names: tuple[str, ...]) -> None:
    """Say what may be a slip: names that look the same, and names made of others."""
    alike = {name: exact_key(("".join(c for c in name if unicodedata.category(c) != "Cf"),)) for name in names}
    for key in (key for key, count in Counter(alike.values()).items() if count > 1):
        same = ", ".join(ascii(name) for name in names if alike[name] == key)
        warnings.warn(
            f"{table.name}: the labels {same} differ only in case, blanks, invisible characters or the way letters are "
            "composed, and are taken as different classes.",
            stacklevel=4,
        )
    for name in names:
        parts = _BETWEEN_LABELS.split(name)
        if len(parts) > 1 and set(parts) <= set(names):
            warnings.warn(
                f"{table.name}: the label {name!r} in {table.where([written.index(name)])} is taken as a class of its "
                f"own, besides {', '.join(map(repr, parts))}; several labels a row are not supported.",
                stacklevel=4,
            )
