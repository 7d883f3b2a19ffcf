"""A reader's own file as a task: CSV, TSV, JSON lines or parquet, one row a text or a pair."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from klnorm_lib.study.spec import Run
from klnorm_lib.tasks import subsets

TEST_SHARE = 0.2
_READERS = {
    ".csv": pd.read_csv,
    ".tsv": lambda path: pd.read_csv(path, sep="\t"),
    ".jsonl": lambda path: pd.read_json(path, lines=True),
    ".parquet": pd.read_parquet,
}


@dataclass(frozen=True)
class OwnTask:
    """What the rest of the study needs to know about a file of your own; the same names as a registered task's."""

    name: str
    kind: str
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...] | None
    num_labels: int
    metrics: tuple[str, ...]
    ood: dict[str, Any] = field(default_factory=dict)


def load(run: Run):
    """The task, its ``DatasetDict`` and its provenance, from the file that ``run.data`` names.

    A fifth of the rows is the test set, drawn with a fixed seed and stratified; of the rest, ``run.size`` rows (all if
    ``None``) are used, a fifth of them for validation, drawn by ``run.split_seed`` and nested. Labels that are numbers
    with a fractional part make a regression.

    Raises ``FileNotFoundError`` for a missing file and ``ValueError`` for an unknown ending, a missing column, empty
    cells, a class with fewer than three rows, or a ``size`` larger than the data.
    """
    import datasets

    path = Path(run.data)
    frame = _read(path, run)
    chosen = [column for column in (run.text, run.text_pair) if column is not None]
    repeated = frame.duplicated(chosen)
    if repeated.any():
        warnings.warn(
            f"{path}: {repeated.sum()} rows repeat the text of an earlier row and are left out, so that no row of "
            "the test set is trained on",
            stacklevel=2,
        )
        frame = frame[~repeated].reset_index(drop=True)
    columns = ("text", "text_pair")[: len(chosen)]
    if len(frame) < 10:
        raise ValueError(f"{path} has {len(frame)} different rows; at least 10 are needed to train, choose and test")
    labels, names = _labels(frame[run.label], path, run.label)
    table = frame[chosen].astype(str).set_axis(columns, axis=1)
    table["label"] = labels
    regression = names is None
    test = subsets.sample(labels, round(TEST_SHARE * len(table)), 0, regression)
    pool = np.setdiff1d(np.arange(len(table)), test)
    train, validation = subsets.split(labels[pool], run.size, run.split_seed, regression, names)
    splits = {"train": pool[train], "validation": pool[validation], "test": np.asarray(test)}
    data = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_pandas(table.iloc[np.sort(rows)], preserve_index=False)
            for name, rows in splits.items()
        }
    )
    task = OwnTask(
        name=path.stem,
        kind="regression" if names is None else ("pair" if len(columns) == 2 else "classification"),
        text_columns=columns,
        label_names=names,
        num_labels=1 if names is None else len(names),
        metrics=("pearson", "spearman") if names is None else ("accuracy", "macro_f1"),
    )
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    provenance = {"source": "file", "id": path.name, "revision": None, "checksums": {"file": checksum}}
    return task, data, provenance


def _read(path: Path, run: Run) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; check --data")
    if path.suffix not in _READERS:
        raise ValueError(f"{path}: cannot read {path.suffix or 'a file without an ending'}; use {', '.join(_READERS)}")
    try:
        frame = _READERS[path.suffix](path)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as {path.suffix}: {error}") from error
    for option in ("text", "text_pair", "label"):
        column = getattr(run, option)
        if column is None:
            continue
        if column not in frame.columns:
            raise ValueError(f"{path} has no column {column!r} ({option}); it has {', '.join(map(str, frame.columns))}")
        empty = np.flatnonzero(frame[column].isna().to_numpy())
        if len(empty):
            raise ValueError(
                f"{path}: column {column!r} is empty in row {empty[0] + 1} ({len(empty)} in all); fill or drop them"
            )
    return frame


def _labels(column: pd.Series, path: Path, name: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if pd.api.types.is_float_dtype(column):
        values = column.to_numpy(dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: column {name!r} has an infinite value")
        if (values != values.round()).any():
            return values, None
        column = column.astype(int)
    classes = sorted(column.unique())
    counts = column.value_counts()
    if len(classes) < 2:
        raise ValueError(f"{path}: column {name!r} holds one class only ({classes[0]!r}); two are needed")
    if counts.min() < 3:
        raise ValueError(
            f"{path}: class {counts.idxmin()!r} of column {name!r} has {counts.min()} rows, at least 3 are needed "
            "(train, validation, test); merge it with another or drop it"
        )
    return column.map({value: i for i, value in enumerate(classes)}).to_numpy(), tuple(map(str, classes))
