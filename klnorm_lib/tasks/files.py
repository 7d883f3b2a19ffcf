"""A reader's own table as a task: CSV, TSV, JSON lines or parquet, one row per text or recording."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd

from . import subsets
from .clips import Clips
from .clips_own import own_clips, peak
from .errors import CorruptDataError, LayoutError, TaskError
from .loading import assemble, check_request
from .rows import Rows, contradictions, exact_key, without_repeats
from .source import Found
from .task_spec import TaskSpec

_TEST_SEED = 0  # fixed: the test rows must not change with the split seed
_READERS = {
    ".csv": lambda path: pd.read_csv(path, keep_default_na=False, na_values={}),
    ".tsv": lambda path: pd.read_csv(path, sep="\t", keep_default_na=False, na_values={}),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
    ".json": lambda path: pd.read_json(path, lines=True, dtype=False),
    ".parquet": pd.read_parquet,
}


def from_file(
    path: str | Path,
    text: str = "text",
    text_pair: str | None = None,
    label: str = "label",
    audio: str | None = None,
    test_fraction: float = 0.2,
    size: int | None = None,
    split_seed: int = 0,
    quiet: Sequence[str] | str = (),
) -> tuple[datasets.DatasetDict, TaskSpec, dict[str, Any]]:
    """A reader's own file as (splits train, validation and test, description, provenance).

    ``text``, ``text_pair`` and ``label`` name columns of a .csv, .tsv, .jsonl or .parquet file; ``audio``, instead of
    ``text``, a column with paths of sound files (from the file's folder on, where they are not absolute), ``quiet`` the
    labels whose recordings may be silent (the provenance has the ``peak`` of all, 1 being full scale). A stratified
    ``test_fraction`` of the rows, the same for every ``split_seed``, is the test set; ``size`` rows of the others
    (``None``: all) become train and validation as in ``load``. Classes are numbered in sorted order of their names;
    labels that are numbers and not all whole make a regression. Rows with a repeated text or sound are used once.
    Raises subclasses of ``ValueError``: an unreadable file, a missing column, an empty text, one class only, a label
    with fewer than three rows (train, validation and test need one each).
    """
    path = Path(path).expanduser()
    check_request(size, split_seed)
    if not 0 < test_fraction < 1:
        raise TaskError(f"test_fraction must lie between 0 and 1, not {test_fraction!r}.")
    table = _read(path)
    if audio is not None:
        text, text_pair = audio, None
    text_columns = (text,) if text_pair is None else (text, text_pair)
    if len({*text_columns, label}) < len(text_columns) + 1:
        raise TaskError(f"text, text_pair and label must be different columns, not {[*text_columns, label]}.")
    if "label" in text_columns:
        raise TaskError("a text column cannot be called 'label'; rename it in the file.")
    missing = [c for c in (*text_columns, label) if c not in table.columns]
    if missing:
        raise LayoutError(
            f"{path.name} has no column {', '.join(map(repr, missing))}; its columns are "
            f"{', '.join(map(repr, map(str, table.columns)))}. Name them with text=, text_pair= or audio=, and label=."
        )
    texts = _texts(table, text_columns, path.name)
    labels, names = _labels(table[label], path.name)
    if audio is not None and names is None:
        raise TaskError(f"{path.name}: the labels are scores; recordings can only be classified: give class names.")
    if quiet and audio is None:
        raise TaskError("quiet names classes of recordings; it needs audio=, the column with paths of sound files.")
    whole = Rows(texts, labels)
    if audio is not None:
        whole = own_clips(path, [name for (name,) in texts], labels, names, quiet)
    rows, removed = _without_repeats(whole, path.name)
    train, test = _hold_out(rows, test_fraction, names, path.name)
    task = TaskSpec(
        name=path.stem,
        kind="audio" if audio else "regression" if names is None else "pair" if text_pair else "classification",
        text_columns=() if audio else text_columns,
        label_names=names,
        metrics=("pearson", "spearman") if names is None else ("accuracy", "macro_f1"),
        hub=(None, None),
        test_split="test",
        caveats=(f"Test is a fixed stratified share ({test_fraction:g}) of the file.",),
    )
    found = Found(id=path.name, revision=None, train=train, test=test)
    found.files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    result, provenance = assemble(task, found, "file", size, split_seed, exact_key)
    provenance["removed"].update(removed)
    levels = {} if audio is None else {"peak": peak(result, path.name)}
    return result, task, {**provenance, "test_fraction": test_fraction, **levels}


def _read(path: Path) -> pd.DataFrame:
    if path.suffix.lower() not in _READERS:
        raise TaskError(f"cannot read {path.name!r}: use a file that ends in {', '.join(_READERS)}.")
    if not path.is_file():
        raise TaskError(f"there is no file {str(path)!r}; check the path.")
    try:
        table = _READERS[path.suffix.lower()](path)
    except Exception as error:  # parsers raise many unrelated classes for a broken file
        raise CorruptDataError(
            f"{path.name} is not a readable {path.suffix[1:]} file ({type(error).__name__}: {error}); check that it is "
            "UTF-8 and not cut off."
        ) from error
    if not len(table):
        raise CorruptDataError(f"{path.name} has no rows.")
    return table


def _without_repeats(rows: Rows, name: str) -> tuple[Rows, dict[str, int]]:
    """The first row of every text or sound, and what went, by reason; a warning says it as well."""
    kept, repeats = without_repeats(rows, exact_key)
    contrary = contradictions(rows, exact_key)
    what = "sound" if isinstance(rows, Clips) else "text"
    if contrary:
        warnings.warn(
            f"{name}: {contrary} {'row repeats' if contrary == 1 else 'rows repeat'} the {what} of an earlier row with "
            f"a different label; the first label was kept, and {contrary} of {len(rows)} rows were left out. Correct "
            "the labels that are wrong.",
            stacklevel=3,
        )
    if repeats - contrary:
        warnings.warn(
            f"{name}: {repeats - contrary} of {len(rows)} rows were left out because they repeat the {what} and the "
            "label of an earlier row (upper and lower case and blanks make no difference).",
            stacklevel=3,
        )
    reasons = {
        "rows repeated in the file": repeats - contrary,
        "rows repeated in the file with another label": contrary,
    }
    return kept, {reason: count for reason, count in reasons.items() if count}


def _rows_named(bad: np.ndarray) -> str:
    first = [str(i + 1) for i in np.flatnonzero(bad)[:5]]
    return f"row{'s' if len(first) > 1 else ''} {', '.join(first)}{' ...' if bad.sum() > 5 else ''}"


def _texts(table: pd.DataFrame, columns: tuple[str, ...], name: str) -> list[tuple[str, ...]]:
    found = []
    for column in columns:
        values = table[column]
        text = values.where(values.notna(), "").astype(str).str.strip()
        empty = (text == "").to_numpy(dtype=bool)
        if empty.any():
            raise CorruptDataError(
                f"{name}: column {column!r} is empty in {_rows_named(empty)} (counted from 1, header not counted); "
                "fill or delete them."
            )
        found.append(text.tolist())
    return list(zip(*found, strict=True))


def _labels(values: pd.Series, name: str) -> tuple[list, tuple[str, ...] | None]:
    empty = (values.isna() | (values.astype(str).str.strip() == "")).to_numpy(dtype=bool)
    if empty.any():
        raise CorruptDataError(f"{name}: the label is missing in {_rows_named(empty)}; fill or delete them.")
    if pd.api.types.is_float_dtype(values) and not np.all(values == np.floor(values)):
        return [float(v) for v in values], None
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        order = sorted(set(values.astype(int)))
        numbers = {v: i for i, v in enumerate(order)}
        labels, names = [numbers[int(v)] for v in values], tuple(str(v) for v in order)
    else:
        text = values.astype(str).str.strip()
        names = tuple(sorted(set(text)))
        labels = [names.index(v) for v in text]
    if len(names) < 2:
        raise TaskError(f"{name}: every row has the label {names[0]!r}; at least two classes are needed.")
    if len(names) > 50 and len(names) > len(labels) / 3:
        raise TaskError(
            f"{name}: the label column has {len(names)} different values in {len(labels)} rows; is it a text column? "
            "Name the label column with label=."
        )
    return labels, names


def _hold_out(rows: Rows, fraction: float, names: tuple[str, ...] | None, name: str) -> tuple[Rows, Rows]:
    groups = subsets.strata(rows.labels, names is None)
    counts = np.bincount(groups)
    what = "recordings" if isinstance(rows, Clips) else "texts"
    if names is not None:
        for i, count in enumerate(counts):
            if count < 3:
                raise TaskError(
                    f"{name}: label {names[i]!r} has {'a single row' if count == 1 else f'{count} rows'} with {what} "
                    "of their own; train, validation and test need one each: add rows or delete the label."
                )
    chosen: set[int] = set()
    for group, count in enumerate(counts):
        if count:
            members = np.random.default_rng([_TEST_SEED, group]).permutation(np.flatnonzero(groups == group))
            chosen.update(members[: min(max(1, round(fraction * count)), max(count - 2, 0))].tolist())
    if not chosen:
        raise TaskError(f"{name}: {len(rows)} rows are too few to hold out a test set; add rows.")
    return rows.take(i for i in range(len(rows)) if i not in chosen), rows.take(sorted(chosen))
