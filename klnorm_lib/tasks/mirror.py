"""Tasks from mirror folders: ``datasets/<set>/<split>.parquet`` beside an ``info.json`` with their checksums."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import CorruptDataError, LayoutError, SourceUnavailableError
from .rows import Rows, align, check_scores, check_texts, join
from .source import Found
from .task_spec import DataSet, Splits, TaskSpec

VARIABLE = "KLNORM_MIRROR"


def folders() -> list[Path]:
    """The folders named by KLNORM_MIRROR, in order; raises ``SourceUnavailableError`` if one is not a folder."""
    found = [Path(part).expanduser() for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part.strip()]
    for folder in found:
        if not folder.is_dir():
            raise SourceUnavailableError(
                f"{VARIABLE} names {str(folder)!r}, which is not a folder; correct it (several folders are joined "
                f"with {os.pathsep!r}) or unset it."
            )
    return found


def find(data: DataSet) -> Path | None:
    """The first mirror folder of a data set, or ``None``."""
    return next((path for root in folders() if (path := root / "datasets" / data.folder).is_dir()), None)


def read(spec: TaskSpec) -> Found:
    """The whole task from the first mirror that has it; raises ``SourceUnavailableError`` if none has."""
    folder = find(spec.data)
    if folder is None:
        raise SourceUnavailableError(absent(spec.data))
    info = read_info(folder)
    found = Found(
        id=f"datasets/{spec.data.folder}",
        revision=revision_of(info),
        train=_rows(spec.data, folder, info, spec.train),
        test=_rows(spec.data, folder, info, spec.test),
    )
    _note_files(found, spec.data, info, spec.train, spec.test)
    if found.revision is None:
        found.max_size = spec.data.mirror_max_size
    for name, ood in spec.ood.items():
        its_folder = find(ood.data)
        if its_folder is None:
            found.missing[name] = f"no mirror has datasets/{ood.data.folder}"
            continue
        its_info = read_info(its_folder)
        found.ood[name] = _rows(ood.data, its_folder, its_info, ood.splits)
        found.ood_ids[name] = {"id": f"datasets/{ood.data.folder}", "revision": revision_of(its_info)}
        _note_files(found, ood.data, its_info, ood.splits)
        if ood.origin and set(ood.origin) <= set(its_info["splits"]):
            found.origins.append(_rows(ood.data, its_folder, its_info, Splits(None, ood.origin)))
    return found


def absent(data: DataSet) -> str:
    """Where a data set was looked for in vain."""
    looked = [str(folder) for folder in folders()]
    if not looked:
        return f"{VARIABLE} is not set; set it to a folder that holds datasets/{data.folder}"
    return f"no folder of {VARIABLE} ({os.pathsep.join(looked)}) holds datasets/{data.folder}"


def read_info(folder: Path) -> dict[str, Any]:
    """The ``info.json`` of a data set; raises ``CorruptDataError`` if it is missing or unreadable."""
    path = folder / "info.json"
    if not path.is_file():
        raise CorruptDataError(f"{path} is missing; copy the folder again or fill it with `klnorm mirror`.")
    try:
        info = json.loads(path.read_text("utf-8"))
        for entry in info["splits"].values():
            entry["rows"], entry["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptDataError(
            f"{path} is not a readable description of a data set ({type(error).__name__}: {error}); copy the folder "
            "again or fill it with `klnorm mirror`."
        ) from error
    return info


def revision_of(info: dict[str, Any]) -> str | None:
    """The commit on the hub that a folder was filled from, if it was."""
    return (info.get("hub") or {}).get("revision")


def split_names(folder: Path, info: dict[str, Any], splits: Splits) -> tuple[str, ...]:
    """The names used in this folder: those of the shared layout, or, in a folder filled from the hub, the hub's."""
    for wanted in (splits.mirror, tuple(splits.hub.split("+")) if splits.hub else (None,)):
        if set(wanted) <= set(info["splits"]):
            return wanted
    raise LayoutError(
        f"{folder / 'info.json'} lists the splits {', '.join(info['splits'])}; {', '.join(splits.mirror)} is needed. "
        "Fill the folder again with `klnorm mirror`."
    )


def _note_files(found: Found, data: DataSet, info: dict[str, Any], *groups: Splits) -> None:
    for splits in groups:
        for name in split_names(Path(data.folder), info, splits):
            found.files[f"datasets/{data.folder}/{name}.parquet"] = info["splits"][name]["sha256"]


def _rows(data: DataSet, folder: Path, info: dict[str, Any], splits: Splits) -> Rows:
    return join([_one(data, folder, info, name) for name in split_names(folder, info, splits)])


def _one(data: DataSet, folder: Path, info: dict[str, Any], split: str) -> Rows:
    path = folder / f"{split}.parquet"
    table = _table(path, info["splits"][split])
    label_column = info.get("label_column", "label")
    missing = [c for c in (*data.text_columns, label_column) if c not in table.column_names]
    if missing:
        raise LayoutError(f"{path} has the columns {table.column_names} and lacks {missing}; fill the folder again.")
    texts = list(zip(*(table.column(c).to_pylist() for c in data.text_columns), strict=True))
    labels = table.column(label_column).to_pylist()
    check_texts(texts, str(path))
    if data.label_names is None:
        return Rows(texts, check_scores(labels, data.label_range, str(path)))
    return Rows(texts, align(labels, info.get("label_names"), data.label_names, str(path)))


def _table(path: Path, entry: dict[str, Any]) -> pa.Table:
    again = "Copy the file again from where the mirror came from, or fill the folder anew with `klnorm mirror`."
    if not path.is_file():
        raise CorruptDataError(f"{path} is missing although info.json lists it. {again}")
    content = path.read_bytes()
    sum_ = hashlib.sha256(content).hexdigest()
    if sum_ != entry["sha256"]:
        raise CorruptDataError(
            f"{path} is truncated or changed: its SHA-256 is {sum_[:12]}..., info.json says "
            f"{str(entry['sha256'])[:12]}... ({len(content)} bytes read). {again}"
        )
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise CorruptDataError(f"{path} is not a readable parquet file ({error}). {again}") from error
    if table.num_rows != entry["rows"]:
        raise CorruptDataError(f"{path} has {table.num_rows} rows, info.json says {entry['rows']}. {again}")
    return table
