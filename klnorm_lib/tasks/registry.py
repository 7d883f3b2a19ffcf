"""The table of tasks: what each is, where it lies, and which out-of-domain sets belong to it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from . import builtin
from .builtin import speech
from .errors import TaskError, UnknownTaskError
from .task_spec import DataSet, OODSpec, Splits, TaskSpec

SOURCES = ("auto", "hub", "mirror", "built-in")


def _data_set(name: str, entry: dict[str, Any]) -> DataSet:
    labels = entry["labels"]
    return DataSet(
        name=name,
        hub=entry["hub"],
        config=entry.get("config"),
        folder=entry.get("folder", name),
        text_columns=tuple(entry.get("text", ())),
        label_names=None if labels is None else _label_names(labels),
        columns=entry.get("columns", {}),
        label_range=tuple(entry["range"]) if "range" in entry else None,
        licence=entry["licence"],
        citation=entry["citation"],
        caveats=tuple(entry.get("caveats", ())),
        mirror_max_size=entry.get("mirror_max_size"),
        label_column=entry.get("label", "label"),
        speaker_column=entry.get("speaker"),
        hub_labels=tuple(entry["hub_labels"]) if "hub_labels" in entry else None,
        silence_ok=entry.get("quiet", False),
    )


def _label_names(labels: list[str] | dict[str, Any]) -> tuple[str, ...]:
    if isinstance(labels, dict):  # numbered names
        return tuple(f"{labels['prefix']}{i}" for i in range(labels["first"], labels["last"] + 1))
    return tuple(labels)


def _splits(entry: list[Any]) -> Splits:
    hub, mirror, where = (*entry, {})[:3]
    return Splits(hub, tuple(mirror), {column: tuple(values) for column, values in where.items()})


def _ood(name: str, entry: dict[str, Any], task: str, maps: dict, train: DataSet, sets: dict) -> OODSpec:
    data = sets[entry["set"]]
    names = {**maps[task], **entry.get("maps", {}).get(task, {})}
    label_map = {
        i: tuple(train.label_names.index(target) for target in names[label]) for i, label in enumerate(data.label_names)
    }
    return OODSpec(
        name=name,
        label_names=data.label_names,
        label_map=label_map,
        data=data,
        splits=_splits(entry["splits"]),
        origin=tuple(entry.get("origin", ())),
        citation=data.citation,
        licence=data.licence,
        caveats=data.caveats,
    )


@cache
def _real_tasks() -> dict[str, TaskSpec]:
    return {**_tasks_of("registry.yaml"), **_tasks_of("registry_audio.yaml")}


def _tasks_of(file: str) -> dict[str, TaskSpec]:
    table = yaml.safe_load(files(__package__).joinpath(file).read_text("utf-8"))
    sets = {name: _data_set(name, entry) for name, entry in table["sets"].items()}
    tasks = {}
    for name, entry in table["tasks"].items():
        data, test = sets[name], _splits(entry["test"])
        family = table.get("families", {}).get(entry.get("ood"), {"members": {}, "maps": {}})
        tasks[name] = TaskSpec(
            name=name,
            kind=entry.get("kind", "audio"),
            text_columns=data.text_columns,
            label_names=data.label_names,
            metrics=tuple(entry["metrics"]),
            hub=(data.hub, data.config),
            test_split=test.hub or test.mirror[0],
            ood={key: _ood(key, e, name, family["maps"], data, sets) for key, e in family["members"].items()},
            caveats=data.caveats,
            citation=data.citation,
            licence=data.licence,
            data=data,
            train=_splits(entry["train"]),
            test=test,
            validation=_splits(entry["validation"]) if "validation" in entry else None,
            speaker_disjoint=entry.get("disjoint", False),
        )
    return tasks


@cache
def _all_tasks() -> dict[str, TaskSpec]:
    return {**_real_tasks(), **builtin.SPECS, **speech.specs()}


def names() -> list[str]:
    """Names of all tasks: the real ones in registry order, then the built-in ones."""
    return list(_all_tasks())


def spec(name: str) -> TaskSpec:
    """The description of the task called ``name``; raises ``UnknownTaskError`` with the closest names."""
    tasks = _all_tasks()
    if name not in tasks:
        close = difflib.get_close_matches(str(name).lower(), tasks, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        owners = [task for task, s in tasks.items() if name in s.ood]
        if owners:
            hint = f"it is an out-of-domain set: load {' or '.join(map(repr, owners))} and take split 'ood/{name}'. "
        raise UnknownTaskError(f"unknown task {name!r}: {hint}Known tasks: {', '.join(tasks)}.")
    return tasks[name]


def check_source(task: TaskSpec, source: str) -> None:
    """Raise ``TaskError`` for a source that there is not, or that cannot have the task."""
    if source not in SOURCES:
        raise TaskError(f"unknown source {source!r}; choose one of {', '.join(SOURCES)}.")
    if task.built_in and source not in ("auto", "built-in"):
        raise TaskError(f"{task.name!r} ships with the library: use source='auto' or 'built-in', not {source!r}.")
    if source == "built-in" and not task.built_in:
        ours = [n for n in names() if spec(n).built_in]
        raise TaskError(
            f"{task.name!r} is real data and has no built-in version; built-in tasks are {', '.join(ours)}. Set "
            "KLNORM_MIRROR and use source='mirror', or use source='hub'."
        )


def planted(name: str) -> Mapping[str, Any]:
    """What a built-in task has planted: ``what``, ``cue`` and ``rate`` (share of rows where cue and label agree).

    Raises ``UnknownTaskError`` when the task is real data, in which nothing was planted.
    """
    found = spec(name)
    if found.planted is None:
        known = [task for task, s in _all_tasks().items() if s.planted is not None]
        what = "it is only packaged with the library" if found.built_in else "it is real data"
        raise UnknownTaskError(f"nothing is planted in {name!r}, {what}; built-in tasks: {', '.join(known)}.")
    return found.planted
