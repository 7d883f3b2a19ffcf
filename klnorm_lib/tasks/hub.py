"""Tasks from the Hugging Face hub, at a revision that is resolved when loading and kept in the record."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import datasets
import huggingface_hub

from .errors import LayoutError, SourceUnavailableError
from .rows import Rows, align, check_scores, check_texts
from .source import Found
from .task_spec import DataSet, TaskSpec

CONVERTED = "refs/convert/parquet"  # where the hub keeps a plain copy of data sets that ship as a script


def read(spec: TaskSpec) -> Found:
    """The whole task from the hub; raises ``SourceUnavailableError`` offline or when the hub has no version."""
    train, unlabelled, revision = read_split(spec.data, spec.train.hub)
    test, dropped, _ = read_split(spec.data, spec.test.hub)
    found = Found(id=spec.data.hub, revision=revision, train=train, test=test, unlabelled=unlabelled + dropped)
    for name, ood in spec.ood.items():
        if ood.data.hub is None or ood.splits.hub is None:
            found.missing[name] = "no version on the hub is known"
            continue
        try:
            rows, _, its_revision = read_split(ood.data, ood.splits.hub)
        except LayoutError as error:
            found.missing[name] = str(error)
            continue
        found.ood[name] = rows
        found.ood_ids[name] = {"id": ood.data.hub, "revision": its_revision}
    return found


def read_split(data: DataSet, split: str) -> tuple[Rows, int, str]:
    """One split of a data set, the number of rows left out because the hub hides their label, and the revision."""
    if data.hub is None:
        raise SourceUnavailableError(
            f"no version of {data.name!r} on the hub is known; set KLNORM_MIRROR to a folder that holds "
            f"datasets/{data.folder}."
        )
    table, revision = load_table(data, split)
    where = f"{data.hub}, split {split}"
    columns = [data.columns.get(c, c) for c in (*data.text_columns, "label")]
    missing = [c for c in columns if c not in table.column_names]
    if missing:
        raise LayoutError(f"{where} has the columns {table.column_names} and lacks {missing}.")
    texts = list(zip(*(list(table[c]) for c in columns[:-1]), strict=True))
    labels = list(table[columns[-1]])
    hidden = sum(label == -1 for label in labels)
    if hidden:
        keep = [i for i, label in enumerate(labels) if label != -1]
        texts, labels = [texts[i] for i in keep], [labels[i] for i in keep]
        if not labels:
            raise LayoutError(f"{where} has hidden labels (-1) only and cannot be used.")
    check_texts(texts, where)
    if data.label_names is None:
        return Rows(texts, check_scores(labels, data.label_range, where)), hidden, revision
    feature = table.features[columns[-1]]
    found: Sequence[str] | None = feature.names if isinstance(feature, datasets.ClassLabel) else None
    return Rows(texts, align(labels, found, data.label_names, where)), hidden, revision


def load_table(data: DataSet, split: str) -> tuple[datasets.Dataset, str]:
    """One split as it lies on the hub, and the commit it is from."""
    if datasets.config.HF_HUB_OFFLINE or huggingface_hub.constants.HF_HUB_OFFLINE:
        raise SourceUnavailableError(
            f"the hub is switched off (HF_HUB_OFFLINE), so {data.hub!r} cannot be read. Unset HF_HUB_OFFLINE, or set "
            f"KLNORM_MIRROR to a folder that holds datasets/{data.folder}; `klnorm mirror` fills one."
        )
    try:
        revision = _resolve(data.hub, None)
        try:
            return datasets.load_dataset(data.hub, data.config, split=split, revision=revision), revision
        except RuntimeError as error:
            if "script" not in str(error).lower():
                raise
            # Scripts are never run: the hub's own conversion to parquet holds the same rows.
            revision = _resolve(data.hub, CONVERTED)
            # there a configuration is a folder
            folder = {} if data.config is None else {"data_dir": data.config}
            return datasets.load_dataset(data.hub, split=split, revision=revision, **folder), revision
    except ValueError as error:
        if "split" in str(error).lower():
            raise LayoutError(f"{data.hub} has no split {split!r} ({error}).") from error
        raise _unreachable(data, error) from error
    except Exception as error:  # the hub's clients raise many unrelated classes for "cannot reach" and "not there"
        raise _unreachable(data, error) from error


def _unreachable(data: DataSet, error: Exception) -> SourceUnavailableError:
    detail = (str(error).splitlines() or [""])[0][:160]
    return SourceUnavailableError(
        f"{data.hub!r} could not be read from the hub ({type(error).__name__}: {detail}). Check the connection, or set "
        f"KLNORM_MIRROR to a folder that holds datasets/{data.folder}; `klnorm mirror` fills one on a connected "
        "machine."
    )


@cache
def _resolve(repo: str, branch: str | None) -> str:
    """The commit that a branch of a data set points to now, looked up once per process so that all splits agree."""
    return huggingface_hub.HfApi().dataset_info(repo, revision=branch).sha
