"""``klnorm tasks``, ``klnorm methods`` and ``klnorm encoders``: what there is to choose from."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from klnorm_lib.cli import output
from klnorm_lib.cli.application import app
from klnorm_lib.cli.completion import method, mirrored


@app.command()
def tasks(as_json: output.Json = False) -> None:
    """List the tasks: kind, rows, where they can be had now, licence."""
    rows = task_rows()
    if as_json:
        output.print_json(rows)
        return
    table = output.table("task", "kind", "labels", "metric", "sources now", "rows", "out of domain", "licence")
    for row in rows:
        table.add_row(
            f"[bold]{row['name']}[/]",
            row["kind"],
            str(row["num_labels"]),
            row["metrics"][0],
            ", ".join(row["sources"]),
            ", ".join(f"{split} {count:,}" for split, count in row["rows"].items()) or "–",
            families(row["ood"]) or "–",
            row["licence"] or "–",
        )
    output.show(table)
    if not os.environ.get("KLNORM_MIRROR"):
        output.note("KLNORM_MIRROR is not set: only the hub and the built-in tasks can be used.")


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show this one alone.", autocompletion=method)
    ] = None,
    as_json: output.Json = False,
) -> None:
    """List the methods with their defaults; with a name, what each hyperparameter is, its unit and range."""
    if name is not None and name not in (names := method("")):
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"no method {name!r}{hint}; there are {', '.join(names)}")
    rows = [row for row in method_rows() if name in (None, row["name"])]
    if as_json:
        output.print_json(rows)
    elif name is None:
        table = output.table("method", "what it does", "hyperparameters and defaults")
        for row in rows:
            fields = ", ".join(f"{field}={value!r}" for field, value in row["fields"].items())
            table.add_row(f"[bold]{row['name']}[/]", _plain(row["description"]), escape(fields) or "–")
        output.show(table)
        output.note("`klnorm methods NAME` says what the hyperparameters of one method are.")
    else:
        table = output.table(name, "default", _plain(rows[0]["description"]))
        for field, value in rows[0]["fields"].items():
            table.add_row(f"[bold]{field}[/]", escape(repr(value)), _plain(rows[0].get("texts", {}).get(field, "")))
        output.show(table)


def _plain(text: str) -> str:
    return escape(text.replace("``", ""))


@app.command()
def encoders(as_json: output.Json = False) -> None:
    """List the encoders that can be used without the hub."""
    rows = encoder_rows()
    if as_json:
        output.print_json(rows)
        return
    table = output.table("encoder", "source")
    for row in rows:
        table.add_row(f"[bold]{row['name']}[/]", row["source"])
    output.show(table)
    output.note("Besides these: any folder with config.json and safetensors, and any hub id.")


def families(names: list[str]) -> str:
    """Names in a row, those of one family (``family/member``) counted."""
    counts = Counter(name.split("/")[0] for name in names)
    return ", ".join(f"{name} ({count})" if count > 1 else name for name, count in counts.items())


def task_rows() -> list[dict[str, Any]]:
    """Every task: kind, labels, metrics, sources that can be used now, rows where they are at hand, licence."""
    from klnorm_lib import tasks
    from klnorm_lib.tasks import mirror

    rows = []
    for name in tasks.names():
        spec = tasks.spec(name)
        folder = None if spec.built_in else mirror.find(spec.data)
        there = {"built-in": spec.built_in, "mirror": folder is not None, "hub": spec.hub[0] is not None}
        rows.append(
            {
                "name": name,
                "kind": spec.kind,
                "num_labels": spec.num_labels,
                "label_names": None if spec.label_names is None else list(spec.label_names),
                "metrics": list(spec.metrics),
                "sources": [source for source, usable in there.items() if usable],
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
    """Every method: name, one line of its docstring, hyperparameters with default and text; the baselines last."""
    from klnorm_lib import methods
    from klnorm_lib.methods.arguments import arguments
    from klnorm_lib.study.fit_protocol import named_fits
    from klnorm_lib.study.plain import to_plain

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
                "texts": {each.name: each.text for each in arguments(cls) if each.text},
            }
        )
    for fit in named_fits():
        defaults = {f.name: to_plain(_default(f)) for f in dataclasses.fields(fit)}
        rows.append({"name": fit.name, "description": fit.description, "version": fit.version, "fields": defaults})
    return rows


def _default(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def encoder_rows() -> list[dict[str, str]]:
    """Built-in encoders, those in the mirror folders, and what can stand in for an encoder."""
    from klnorm_lib import encoders
    from klnorm_lib.study.fit_protocol import featurisers

    rows = [{"name": name, "source": "built-in"} for name in encoders.names()]
    rows += [{"name": name, "source": "mirror"} for name in mirrored()]
    return rows + [{"name": name, "source": text} for name, text in featurisers().items()]
