"""What the listing commands of the command line show, as plain rows."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from pathlib import Path
from typing import Any

from rich.table import Table

from klnorm_lib.study.progress import show
from klnorm_lib.study.record import Record


def mirrors() -> list[Path]:
    """The folders that ``KLNORM_MIRROR`` names."""
    return [Path(part).expanduser() for part in os.environ.get("KLNORM_MIRROR", "").split(os.pathsep) if part]


def task_rows() -> list[dict[str, Any]]:
    """Every task: kind, labels, metrics, sources that can be used now, rows where they are at hand, licence."""
    from klnorm_lib import tasks
    from klnorm_lib.tasks import mirror

    rows = []
    for name in tasks.names():
        spec = tasks.spec(name)
        folder = None if spec.built_in else mirror.find(spec.data)
        known = {"built-in": spec.built_in, "mirror": folder is not None, "hub": spec.hub[0] is not None}
        rows.append(
            {
                "name": name,
                "kind": spec.kind,
                "num_labels": spec.num_labels,
                "label_names": None if spec.label_names is None else list(spec.label_names),
                "metrics": list(spec.metrics),
                "sources": [source for source, there in known.items() if there],
                "hub": spec.hub[0],
                "rows": _rows(spec, folder),
                "ood": list(spec.ood),
                "licence": spec.licence,
                "caveats": list(spec.caveats),
            }
        )
    return rows


def _rows(spec, folder: Path | None) -> dict[str, int]:
    """Rows of train (validation is carved from it) and test, before overlaps are removed; empty if not at hand."""
    if spec.kind == "audio":
        from klnorm_lib.tasks.audio_mirror import count_rows
        from klnorm_lib.tasks.builtin import speech

        return count_rows(spec, speech.HERE / spec.name if spec.built_in else folder)
    if spec.built_in:
        from klnorm_lib import tasks

        return {name: len(split) for name, split in tasks.load(spec.name).items() if name in ("train", "test")}
    if folder is None:
        return {}
    splits = json.loads((folder / "info.json").read_text("utf-8"))["splits"]
    parts = {"train": spec.train.mirror, "test": spec.test.mirror}
    return {name: sum(splits[s]["rows"] for s in parts if s in splits) for name, parts in parts.items()}


def method_rows() -> list[dict[str, Any]]:
    """Every method: name, one line of its docstring, hyperparameters with their defaults; the baselines last."""
    from klnorm_lib import methods
    from klnorm_lib.study import frozen, setfit

    rows = [{"name": "plain", "description": "No method: the encoder and its own head.", "version": 1, "fields": {}}]
    for name in methods.names():
        if name == "plain":
            continue
        cls = methods.REGISTRY[name]
        rows.append(
            {
                "name": name,
                "description": (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " "),
                "version": cls.version,
                "fields": {f.name: _default(f) for f in dataclasses.fields(cls)},
            }
        )
    for module, cls in ((setfit, setfit.SetFit), (frozen, frozen.Frozen)):
        told = {f.name: list(f.default) for f in dataclasses.fields(cls)}
        rows.append({"name": module.NAME, "description": module.DESCRIPTION, "version": cls.version, "fields": told})
    return rows


def _default(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def encoder_rows() -> list[dict[str, str]]:
    """Built-in encoders, those in the mirror folders, and what can stand in for an encoder with method frozen."""
    from klnorm_lib import encoders
    from klnorm_lib.study import frozen

    rows = [{"name": name, "source": "built-in"} for name in encoders.names()]
    for folder in mirrors():
        found = sorted(path for path in (folder / "models").glob("*") if (path / "config.json").is_file())
        rows += [{"name": path.name.replace("--", "/", 1), "source": "mirror"} for path in found]
    return rows + [{"name": name, "source": told} for name, told in frozen.FEATURISERS.items()]


def record_table(record: Record, table_of) -> Table:
    """A record's numbers on train, validation, test and each out-of-domain set, one row a metric."""
    splits = {"train": record.train, "validation": record.validation, "test": record.test}
    splits.update({f"ood/{name}": scores for name, scores in record.ood.items()})
    names = list(dict.fromkeys(name for scores in splits.values() for name in scores))
    ece = {"test": record.calibration["test"].get("ece")}
    ece.update({f"ood/{name}": scores.get("ece") for name, scores in record.calibration["ood"].items()})
    columns = [*names, *(["ece"] if record.calibration["test"] else [])]
    table = table_of("split", "rows", *columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for split, scores in splits.items():
        values = [*(scores.get(name) for name in names), *([ece.get(split)] if "ece" in columns else [])]
        style = "bold" if split == "test" else None
        table.add_row(split, f"{record.rows[split]:,}", *map(show, values), style=style)
    return table
