"""Rows on their way from a source to a ``DatasetDict``: texts, labels, and the checks both must pass."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import CorruptDataError, LayoutError

if TYPE_CHECKING:
    import datasets

_NOT_PLAIN, _NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+"), re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Rows:
    """Texts (one tuple per row, one string per text column) and their labels, in the same order."""

    texts: list[tuple[str, ...]]
    labels: list[int] | list[float]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Iterable[int]) -> Rows:
        """The rows at ``indices``, in that order."""
        indices = list(indices)
        return Rows([self.texts[i] for i in indices], [self.labels[i] for i in indices])


def join(parts: Sequence[Rows]) -> Rows:
    """All parts, one after another."""
    return Rows([t for part in parts for t in part.texts], [y for part in parts for y in part.labels])


Key = Callable[[tuple[str, ...]], str]


def key(texts: tuple[str, ...]) -> str:
    """What two rows of a registered task share when they say the same: lower case, letters and digits, columns apart.

    Letters are a-z and ``<br />`` counts as a space, because copies of one English corpus differ in how accents and
    line breaks were kept; a text with no such letter keeps its other letters, and one without letters is itself.
    """
    return "\n".join(_plain_text(text) for text in texts)


def exact_key(texts: tuple[str, ...]) -> str:
    """What two rows of any language share when they are the same but for case, blanks and how letters are composed.

    Lower case and not case folding, which would make one word of the German "Maße" and "Masse".
    """
    return "\n".join(" ".join(unicodedata.normalize("NFC", text).lower().split()) for text in texts)


def _plain_text(text: str) -> str:
    lower = text.lower().replace("<br />", " ")
    return _NOT_PLAIN.sub("", lower) or _NOT_ALPHANUMERIC.sub("", lower) or text


def without(rows: Rows, taken: set[str], key: Key = key) -> tuple[Rows, int]:
    """``rows`` less those whose key is in ``taken``, and how many went."""
    keep = [i for i, texts in enumerate(rows.texts) if key(texts) not in taken]
    return (rows, 0) if len(keep) == len(rows) else (rows.take(keep), len(rows) - len(keep))


def without_repeats(rows: Rows, key: Key = key) -> tuple[Rows, int]:
    """The first row of every key, and how many repeats went."""
    keep = list(_first_rows(rows, key).values())
    return (rows, 0) if len(keep) == len(rows) else (rows.take(keep), len(rows) - len(keep))


def contradictions(rows: Rows, key: Key = key) -> int:
    """How many rows repeat an earlier one and have another label than its first row."""
    first = _first_rows(rows, key)
    return sum(rows.labels[first[key(texts)]] != label for texts, label in zip(rows.texts, rows.labels, strict=True))


def _first_rows(rows: Rows, key: Key) -> dict[str, int]:
    first: dict[str, int] = {}
    for i, texts in enumerate(rows.texts):
        first.setdefault(key(texts), i)
    return first


def checksum(rows: Rows) -> str:
    """SHA-256 of the rows in order, as JSON lines: the same texts and labels give the same sum from any source."""
    digest = hashlib.sha256()
    for texts, label in zip(rows.texts, rows.labels, strict=True):
        digest.update(json.dumps([*texts, label], ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def to_dataset(rows: Rows, text_columns: Sequence[str], label_names: Sequence[str] | None) -> datasets.Dataset:
    """A ``Dataset`` with the text columns and ``label`` (a ``ClassLabel``, or float32 for a score)."""
    import datasets

    label = datasets.Value("float32") if label_names is None else datasets.ClassLabel(names=list(label_names))
    columns = {c: [texts[i] for texts in rows.texts] for i, c in enumerate(text_columns)}
    features = datasets.Features({**{c: datasets.Value("string") for c in text_columns}, "label": label})
    return datasets.Dataset.from_dict({**columns, "label": rows.labels}, features=features)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", str(name).lower())


def align(values: Sequence, found: Sequence[str] | None, expected: Sequence[str], where: str) -> list[int]:
    """Class ids in the order of ``expected``, from ids with names ``found``, ids without names, or label strings.

    Names are compared without case and punctuation. Raises ``LayoutError`` when names differ and
    ``CorruptDataError`` when an id is outside the range; ``where`` is named in both.
    """
    ids = {_plain(name): i for i, name in enumerate(expected)}
    if found is not None:
        if {_plain(name) for name in found} != set(ids):
            raise LayoutError(f"{where}: its labels are {list(found)}, the registry expects {list(expected)}.")
        order = [ids[_plain(name)] for name in found]
    else:
        order = list(range(len(expected)))
    result = []
    for row, value in enumerate(values):
        if isinstance(value, str) and found is None and _plain(value) in ids:
            result.append(ids[_plain(value)])
        elif isinstance(value, int) and 0 <= value < len(order):
            result.append(order[value])
        else:
            raise CorruptDataError(
                f"{where}, row {row}: label {value!r} is outside the range; the labels are ids 0 to {len(order) - 1} "
                f"({', '.join(expected)}). Correct the row or fetch the file again."
            )
    return result


def check_scores(values: Sequence, bounds: tuple[float, float] | None, where: str) -> list[float]:
    """The scores as floats; raises ``CorruptDataError`` for one that is not a number or outside ``bounds``."""
    low, high = bounds or (-math.inf, math.inf)
    for row, value in enumerate(values):
        if not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
            raise CorruptDataError(
                f"{where}, row {row}: score {value!r} is outside the range {low} to {high}. "
                "Correct the row or fetch the file again."
            )
    return [float(value) for value in values]


def check_texts(texts: Sequence[tuple[str, ...]], where: str) -> None:
    """Raise ``CorruptDataError`` for a row whose text is missing or not a string."""
    for row, parts in enumerate(texts):
        if not all(isinstance(part, str) for part in parts):
            raise CorruptDataError(f"{where}, row {row}: a text is missing. Correct the row or fetch the file again.")
