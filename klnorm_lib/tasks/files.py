"""A reader's own table as a task: CSV, TSV, JSON or parquet, one row per text or recording."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from . import subsets
from .clips import Clips
from .clips_own import own_clips, peak
from .columns import labels_of, texts_of
from .delimited import read_csv, read_tsv
from .errors import TaskError
from .json_table import read_json
from .loading import assemble, check_request
from .parquet_table import read_parquet
from .rows import Rows, contradictions, exact_key, without_repeats
from .source import Found
from .task_spec import TaskSpec

_TEST_SEED = 0  # fixed: the test rows must not change with the split seed
_READERS = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_json,
    ".json": read_json,
    ".parquet": read_parquet,
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

    ``text``, ``text_pair`` and ``label`` name columns of a .csv, .tsv, .jsonl, .json or .parquet file in UTF-8;
    ``audio``, instead of ``text``, a column with paths of sound files (from the file's folder on, where they are not
    absolute), ``quiet`` the labels whose recordings may be silent (the provenance has the ``peak`` of all, 1 being full
    scale). A stratified ``test_fraction`` of the rows, the same for every ``split_seed``, is the test set; ``size``
    rows of the others (``None``: all) become train and validation as in ``load``.

    Texts and labels are taken as they are written, without blanks at their ends: "01", "NA" and "True" stay what they
    are. Classes are numbered in numerical order of their names if all are numbers, in the order of the file if it is
    parquet with a ``ClassLabel``, and else in sorted order. Labels that are numbers and not all whole make a
    regression. A row whose text or sound was there before is left out (upper and lower case and blanks make no
    difference, any other character does); a ``UserWarning`` says how many, and how many of them had another label.

    Raises subclasses of ``ValueError`` that name the row: an unreadable file, a row that has not as many fields as the
    header, a missing column, a missing text or label, several labels in a row, a score that is not finite, one class
    only, a label with fewer than three rows (train, validation and test need one each), too few rows for the classes.
    """
    path = Path(path).expanduser()
    check_request(size, split_seed)
    if not 0 < test_fraction < 1:
        raise TaskError(f"test_fraction must lie between 0 and 1, not {test_fraction!r}.")
    if audio is not None:
        text, text_pair = audio, None
    text_columns = (text,) if text_pair is None else (text, text_pair)
    if len({*text_columns, label}) < len(text_columns) + 1:
        raise TaskError(f"text, text_pair and label must be different columns, not {[*text_columns, label]}.")
    if "label" in text_columns:
        raise TaskError("a text column cannot be called 'label'; rename it in the file.")
    content = _content(path)
    table = _READERS[path.suffix.lower()](content, path.name, (*text_columns, label))
    what = "text" if audio is None else "path of a sound file"
    texts = list(zip(*(texts_of(table, column, what) for column in text_columns), strict=True))
    labels, names = labels_of(table, label)
    if audio is not None and names is None:
        raise TaskError(f"{path.name}: the labels are scores; recordings can only be classified: give class names.")
    if quiet and audio is None:
        raise TaskError("quiet names classes of recordings; it needs audio=, the column with paths of sound files.")
    whole = Rows(texts, labels)
    if audio is not None:
        whole = own_clips(path, [name for (name,) in texts], labels, names, quiet)
    rows, removed = _without_repeats(whole, path.name)
    train, test = _hold_out(rows, test_fraction, names, path.name)
    there = f"{path.name} has {len(rows)} rows{' less repeats' if removed else ''}"
    _check_size(train, test, size, test_fraction, names, there)
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
    found.files = {path.name: hashlib.sha256(content).hexdigest()}
    result, provenance = assemble(task, found, "file", size, split_seed, exact_key)
    provenance["removed"].update(removed)
    levels = {} if audio is None else {"peak": peak(result, path.name)}
    return result, task, {**provenance, "test_fraction": test_fraction, **levels}


def _content(path: Path) -> bytes:
    if path.suffix.lower() not in _READERS:
        raise TaskError(f"cannot read {path.name!r}: use a file that ends in {', '.join(_READERS)}.")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise TaskError(f"there is no file {str(path)!r}: it {what}; check the path.")
    return path.read_bytes()


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
            f"label of an earlier row{' (upper and lower case and blanks make no difference)' * (what == 'text')}.",
            stacklevel=3,
        )
    reasons = {
        "rows repeated in the file": repeats - contrary,
        "rows repeated in the file with another label": contrary,
    }
    return kept, {reason: count for reason, count in reasons.items() if count}


def _hold_out(rows: Rows, fraction: float, names: tuple[str, ...] | None, name: str) -> tuple[Rows, Rows]:
    groups = subsets.strata(rows.labels, names is None)
    counts = np.bincount(groups)
    what = "recordings" if isinstance(rows, Clips) else "texts"
    if names is not None:
        for i, count in enumerate(counts):
            if count < 3:
                raise TaskError(
                    f"{name}: label {names[i]!r} has {'a single row' if count == 1 else f'{count} rows'} with {what} "
                    "of their own; train, validation and test need one each: add rows or delete those of this label."
                )
    chosen: set[int] = set()
    for group, count in enumerate(counts):
        if count:
            members = np.random.default_rng([_TEST_SEED, group]).permutation(np.flatnonzero(groups == group))
            chosen.update(members[: _test_rows(count, fraction)].tolist())
    if not chosen:
        raise TaskError(f"{name}: {len(rows)} rows are too few to hold out a test set; add rows.")
    return rows.take(i for i in range(len(rows)) if i not in chosen), rows.take(sorted(chosen))


def _check_size(
    train: Rows, test: Rows, size: int | None, fraction: float, names: tuple[str, ...] | None, there: str
) -> None:
    """Raise ``TaskError`` where the file is too small: for its classes, or for the ``size`` that is asked for."""
    if names is None and len(train) < 3:
        raise TaskError(f"{there}, {len(test)} of them for test; scores need 3 other rows at least: add rows.")
    if names is not None and len(train) < subsets.least_size(len(names)):
        counts = np.bincount([*train.labels, *test.labels])
        raise TaskError(
            f"{there}; {len(names)} classes need at least {_rows_needed(counts, fraction)} rows: {len(test)} are for "
            "test, a fifth of the others is for validation, and each part needs a row of every class. Add rows, or "
            "delete those of a class."
        )
    if size is not None and size > len(train):
        raise TaskError(
            f"size {size} is larger than the data: {there}, {len(test)} of them for test; ask for at most "
            f"{len(train)}, or give no size to use all."
        )


def _rows_needed(counts: np.ndarray, fraction: float) -> int:
    """Rows with which enough are left beside the test set, when rows are added where there are fewest."""
    counts, least = counts.copy(), subsets.least_size(len(counts))
    while counts.sum() - sum(_test_rows(count, fraction) for count in counts) < least:
        counts[counts.argmin()] += 1
    return int(counts.sum())


def _test_rows(count: int, fraction: float) -> int:
    """Rows of a class of ``count`` that are held out: at least one, and two stay for train and validation."""
    return min(max(1, round(fraction * count)), max(count - 2, 0))
