"""From a task's name to a ``DatasetDict``: choose the source, remove overlaps, take the subset."""

from __future__ import annotations

import warnings
from typing import Any

import datasets

from . import audio_hub, audio_mirror, builtin, hub, mirror, subsets
from .clips import Clips, decode_all, speakers, without_speakers
from .errors import SourceUnavailableError, TaskError
from .registry import check_source, spec
from .rows import Key, Rows, checksum, key, to_dataset, without, without_repeats
from .source import Found
from .task_spec import TaskSpec

OOD_ROWS = 1000
OOD_SEED = 20240229  # fixed: out-of-domain rows must not change with the split seed


def load(name: str, size: int | None = None, split_seed: int = 0, source: str = "auto") -> datasets.DatasetDict:
    """A task as a ``DatasetDict`` with splits train, validation, test and ``ood/<name>``; label column ``label``.

    Audio tasks have a column ``audio``: float32 samples at 16 kHz, one channel. ``size`` counts all labelled rows
    used, a fifth of them validation; ``None`` takes all. Subsets are stratified, drawn by ``split_seed`` and nested.
    ``test`` is the public labelled set, whole. Out-of-domain sets hold at most 1,000 rows, always the same ones, and
    keep their own label names: see ``spec(name).ood[...].label_map``. ``source`` is "hub", "mirror" (KLNORM_MIRROR),
    "built-in", or "auto": mirror, then hub, never a substitute.
    Raises subclasses of ``ValueError`` (see ``tasks.errors``) that say what to do.
    """
    return load_with_provenance(name, size, split_seed, source)[0]


def load_with_provenance(
    name: str, size: int | None = None, split_seed: int = 0, source: str = "auto"
) -> tuple[datasets.DatasetDict, dict[str, Any]]:
    """``load``, and where the rows came from as JSON-ready values.

    Keys: task, source, id, revision, checksums (SHA-256 of each split's rows), files (SHA-256 of each file read),
    size (rows of train and validation), split_seed, rows, removed (counts, by reason), ood (id, revision, rows
    available, rows removed as overlaps, rows kept) and ood_missing (reason, by name).
    """
    task = spec(name)
    check_request(size, split_seed)
    used, found = _find(task, source)
    return assemble(task, found, used, size, split_seed)


def check_request(size: Any, split_seed: Any) -> None:
    """Raise ``TaskError`` unless ``size`` is a positive integer or None and ``split_seed`` an integer >= 0."""
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise TaskError(f"size must be a positive whole number of rows, not {size!r}; leave it out to use all.")
    if isinstance(split_seed, bool) or not isinstance(split_seed, int) or split_seed < 0:
        raise TaskError(f"split_seed must be a whole number from 0 on, not {split_seed!r}.")


def _find(task: TaskSpec, source: str) -> tuple[str, Found]:
    check_source(task, source)
    if task.built_in:
        return "built-in", builtin.read(task)
    from_mirror, from_hub = (audio_mirror, audio_hub) if task.kind == "audio" else (mirror, hub)
    if source == "mirror" or (source == "auto" and mirror.find(task.data) is not None):
        return "mirror", from_mirror.read(task)
    if source == "hub":
        return "hub", from_hub.read(task)
    try:
        return "hub", from_hub.read(task)
    except SourceUnavailableError as error:
        try:
            from_mirror.read(task)
        except SourceUnavailableError as absent:
            raise SourceUnavailableError(
                f"task {task.name!r} was found in no source. Mirror: {absent}. Hub: {error}"
            ) from error
        raise


def assemble(
    task: TaskSpec, found: Found, source: str, size: int | None, split_seed: int, key: Key = key
) -> tuple[datasets.DatasetDict, dict[str, Any]]:
    """Splits and provenance from the whole rows of one source, overlaps removed: rows whose ``key`` is the same."""
    regression = task.label_names is None
    train, removed = _clean_train(found, key)
    apart, removed = _clean_validation(found, removed, key)
    if task.speaker_disjoint:
        train, apart, removed = _keep_speakers_apart(train, apart, found.test, removed)
    if not regression and len(train) < 1:
        raise TaskError(f"task {task.name!r}: no training rows are left after removing test rows.")
    cap = found.max_size
    if cap is not None and size is not None and size > cap:
        raise TaskError(
            f"size {size} is too large for {task.name!r} from this source: at most {cap} rows may be used ("
            f"{' '.join(task.caveats)}) Ask for at most {cap}{', or use source=' + repr('hub') if task.hub[0] else ''}."
        )
    wanted = min(cap, len(train)) if cap is not None and size is None else size
    if apart is None:
        apart = train
        part, validation = subsets.split(train.labels, wanted, split_seed, regression, task.label_names)
    else:
        part, validation = subsets.split_apart(train.labels, apart.labels, wanted, split_seed, task.label_names)
    splits: dict[str, tuple[Rows, Any]] = {
        "train": (train.take(part), task.label_names),
        "validation": (apart.take(validation), task.label_names),
        "test": (found.test, task.label_names),
    }
    seen = {key(texts) for rows in (found.train, found.test) for texts in rows.texts}
    ood_facts = {}
    for name, rows in found.ood.items():
        kept, overlaps = without(rows, seen, key)
        kept, repeats = without_repeats(kept, key)
        chosen = kept.take(subsets.sample(kept.labels, OOD_ROWS, OOD_SEED))
        splits[f"ood/{name}"] = (chosen, task.ood[name].label_names)
        facts = {"rows": len(rows), "removed_overlap": overlaps, "removed_repeats": repeats, "used": len(chosen)}
        ood_facts[name] = {**found.ood_ids.get(name, {}), **facts}
    for name, reason in found.missing.items():
        warnings.warn(f"{task.name}: out-of-domain set {name!r} is left out: {reason}", stacklevel=4)
    ready = {split: _ready(rows, task, labels) for split, (rows, labels) in splits.items()}
    result = datasets.DatasetDict({split: data for split, (data, _) in ready.items()})
    provenance = {
        "task": task.name,
        "source": source,
        "id": found.id,
        "revision": found.revision,
        "checksums": {split: sum_ for split, (_, sum_) in ready.items()},
        "files": found.files,
        "size": len(part) + len(validation),
        "split_seed": split_seed,
        "rows": {split: len(rows) for split, (rows, _) in splits.items()},
        "removed": removed,
        "ood": ood_facts,
        "ood_missing": found.missing,
    }
    return result, provenance


def _ready(rows: Rows, task: TaskSpec, labels: Any) -> tuple[datasets.Dataset, str]:
    """The rows as a ``Dataset``, and their checksum."""
    if isinstance(rows, Clips):
        return decode_all(rows, labels)
    return to_dataset(rows, task.text_columns, labels), checksum(rows)


def _clean_train(found: Found, key: Key) -> tuple[Rows, dict[str, int]]:
    """Training rows less those that would leak into test, validation or an out-of-domain set."""
    train, in_test = without(found.train, {key(texts) for texts in found.test.texts}, key)
    train, in_origins = without(train, {key(texts) for rows in found.origins for texts in rows.texts}, key)
    train, repeats = without_repeats(train, key)
    removed = {
        "train rows also in test": in_test,
        "train rows that are originals of out-of-domain rows": in_origins,
        "train rows repeated": repeats,
        "rows with a hidden label": found.unlabelled,
    }
    return train, {reason: count for reason, count in removed.items() if count}


def _clean_validation(found: Found, removed: dict[str, int], key: Key) -> tuple[Rows | None, dict[str, int]]:
    """Rows kept for validation less those also in train or test, where a task has such rows."""
    if found.validation is None:
        return None, removed
    taken = {key(texts) for rows in (found.train, found.test) for texts in rows.texts}
    rows, gone = without(found.validation, taken, key)
    return rows, {**removed, **({"validation rows also in train or test": gone} if gone else {})}


def _keep_speakers_apart(
    train: Clips, apart: Clips | None, test: Clips, removed: dict[str, int]
) -> tuple[Clips, Clips | None, dict[str, int]]:
    """No speaker of test trains or validates, and none trains who validates from rows of their own."""
    gone: dict[str, int] = {}
    if apart is not None:
        apart, gone["validation rows of speakers in test"] = without_speakers(apart, speakers(test))
        train, gone["train rows of speakers in validation"] = without_speakers(train, speakers(apart))
    train, gone["train rows of speakers in test"] = without_speakers(train, speakers(test))
    return train, apart, {**removed, **{reason: count for reason, count in gone.items() if count}}
