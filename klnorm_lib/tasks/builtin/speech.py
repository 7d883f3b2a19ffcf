"""Spoken tasks that ship with the library as sound files, in the layout of a mirror."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..source import Found
from ..task_spec import DataSet, OODSpec, Splits, TaskSpec

HERE = Path(__file__).parent
_SHIFT = "ood_"  # a split called ood_NAME is the out-of-domain set NAME


def specs() -> dict[str, TaskSpec]:
    """The packaged tasks, described by the ``info.json`` beside their files."""
    found = sorted(HERE.glob("*/info.json"))
    return {path.parent.name: _spec(path.parent.name, json.loads(path.read_text("utf-8"))) for path in found}


def read(spec: TaskSpec) -> Found:
    """The whole task, as any other source hands it over; its revision is the checksum of its table."""
    from ..audio_mirror import read_folder

    found = read_folder(spec, HERE / spec.name, f"klnorm_lib/{spec.name}")
    (table,) = found.files.values()
    found.revision = f"files-{table[:12]}"
    for facts in found.ood_ids.values():
        facts["revision"] = found.revision
    return found


def _spec(name: str, info: dict[str, Any]) -> TaskSpec:
    labels, caveats = tuple(info["label_names"]), tuple(info.get("caveats", ()))
    citation, licence = info.get("citation") or "This library", info["licence"]
    data = DataSet(
        name=name,
        hub=None,
        config=None,
        folder=name,
        text_columns=(),
        label_names=labels,
        licence=licence,
        citation=citation,
        caveats=caveats,
        speaker_column=next((c for c in ("speaker", "voice") if c in info["columns"]), None),
        built_in=True,
    )

    def shift(split: str) -> OODSpec:
        return OODSpec(
            name=split.removeprefix(_SHIFT),
            label_names=labels,
            label_map={i: (i,) for i in range(len(labels))},
            data=data,
            splits=Splits(None, (split,)),
            citation=citation,
            licence=licence,
        )

    return TaskSpec(
        name=name,
        kind="audio",
        text_columns=(),
        label_names=labels,
        metrics=("accuracy", "macro_f1"),
        hub=(None, None),
        test_split="test",
        ood={split.removeprefix(_SHIFT): shift(split) for split in info["splits"] if split.startswith(_SHIFT)},
        caveats=caveats,
        citation=citation,
        licence=licence,
        data=data,
        train=Splits(None, ("train",)),
        test=Splits(None, ("test",)),
        validation=Splits(None, ("validation",)) if "validation" in info["splits"] else None,
        speaker_disjoint=True,
    )
