"""``klnorm run``: one run, recorded."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from klnorm_lib.cli import completion, output
from klnorm_lib.cli.application import app

if TYPE_CHECKING:
    from klnorm_lib.study.record import Record


@app.command()
def run(
    task: Annotated[str | None, typer.Option(help="One of `klnorm tasks`.", autocompletion=completion.task)] = None,
    encoder: Annotated[
        str, typer.Option(help="One of `klnorm encoders`, a folder, or a hub id.", autocompletion=completion.encoder)
    ] = "klnorm-tiny",
    method: Annotated[
        str,
        typer.Option(
            help="One of `klnorm methods`, baselines included; plain means none.",
            autocompletion=completion.method,
        ),
    ] = "plain",
    method_arg: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A hyperparameter of the method; repeatable.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Labelled rows used, validation included; all if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Head, order of rows, dropout.")] = 0,
    split_seed: Annotated[int, typer.Option(help="Which rows are used, and which of them validate.")] = 0,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 200,
    batch_size: Annotated[int, typer.Option(help="Rows per optimiser step.")] = 16,
    gradient_accumulation: Annotated[int, typer.Option(help="Parts a step is computed in.")] = 1,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate; if not given 2e-5, or what suits a built-in encoder.")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.0,
    warmup_ratio: Annotated[float, typer.Option(help="Share of the steps that the rate rises.")] = 0.0,
    schedule: Annotated[str, typer.Option(help="linear, constant or cosine.")] = "linear",
    max_grad_norm: Annotated[float, typer.Option(help="Gradients are clipped to this norm.")] = 1.0,
    max_length: Annotated[int, typer.Option(help="Tokens per row of text.")] = 128,
    max_seconds: Annotated[float, typer.Option(help="Seconds per recording; a longer one keeps its beginning.")] = 10.0,
    evaluations: Annotated[int, typer.Option(help="How often the validation rows are looked at.")] = 5,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    source: Annotated[str, typer.Option(help="Of the task: auto, hub, mirror or built-in.")] = "auto",
    encoder_source: Annotated[str, typer.Option(help="Of the encoder: auto, hub, mirror or built-in.")] = "auto",
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="A file of your own: CSV, TSV, JSON or parquet.")
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="COLUMN", help="Its text column.")] = None,
    text_pair: Annotated[str | None, typer.Option(metavar="COLUMN", help="Its second text column, if any.")] = None,
    audio: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Its column with paths of sound files, instead of a text.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Its label column.")] = None,
    quiet: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="A label whose recordings may be silent; repeatable.")
    ] = None,
    spec_augment: Annotated[
        bool, typer.Option(help="Hide parts of recordings in training as the encoder's configuration says.")
    ] = True,
    ood: Annotated[bool, typer.Option(help="Predict the out-of-domain rows too.")] = True,
    test_rows: Annotated[int | None, typer.Option(help="Test on a fixed sample of so many rows at most.")] = None,
    ood_rows: Annotated[int | None, typer.Option(help="The same for each out-of-domain set.")] = None,
    records: Annotated[Path, typer.Option(help="Records file to append to.")] = Path("records/run.jsonl"),
    as_json: output.Json = False,
) -> None:
    """Fine-tune once and record what came out; a run that is already recorded is not done again."""
    options = {k: v for k, v in locals().items() if k not in ("method_arg", "records", "as_json")}
    from klnorm_lib.encoders import sources
    from klnorm_lib.study import Run
    from klnorm_lib.study import run as carry_out
    from klnorm_lib.study.fit_protocol import fit_of

    if learning_rate is None:
        trains = fit_of(method).takes_steps
        options["learning_rate"] = sources.learning_rate(encoder) if trains else sources.LEARNING_RATE
    wanted = Run(**options, method_args=dict(parse_argument(text) for text in method_arg or []))
    record = carry_out(wanted, records=records, progress=True)
    if as_json:
        output.print_json({**record.to_dict(), "already_done": record.already_done, "records": str(records)})
        return
    output.show(record_table(record))
    output.stderr().print(f"[dim]record {record.hash[:12]} in {records}[/]", soft_wrap=True)


def parse_argument(text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` as a pair; the value is read as a Python or JSON literal, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--method-arg takes NAME=VALUE, for example beta=1e-3; got {text!r}")
    for read in (ast.literal_eval, json.loads):
        try:
            return name.strip(), read(value)
        except (ValueError, SyntaxError):
            continue
    return name.strip(), value


def record_table(record: Record) -> Table:
    """A record's numbers on train, validation, test and each out-of-domain set, one row a metric."""
    from klnorm_lib.study.progress import show

    splits = {"train": record.train, "validation": record.validation, "test": record.test}
    splits.update({f"ood/{name}": scores for name, scores in record.ood.items()})
    names = list(dict.fromkeys(name for scores in splits.values() for name in scores))
    ece = {"test": record.calibration["test"].get("ece")}
    ece.update({f"ood/{name}": scores.get("ece") for name, scores in record.calibration["ood"].items()})
    columns = [*names, *(["ece"] if record.calibration["test"] else [])]
    table = output.table("split", "rows", *columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for split, scores in splits.items():
        values = [*(scores.get(name) for name in names), *([ece.get(split)] if "ece" in columns else [])]
        style = "bold" if split == "test" else None
        table.add_row(split, f"{record.rows[split]:,}", *map(show, values), style=style)
    return table
