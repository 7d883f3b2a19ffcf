"""The command line: ``klnorm run``, ``klnorm study``, and what lists, fetches, pretrains and reports."""

from __future__ import annotations

import ast
import json
import os
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from klnorm_lib.cli import fisher as cli_fisher
from klnorm_lib.cli.options import Json

EVERY = ("task", "size", "encoder", "method", "split_seed", "seed", "metric", "train", "validation", "test", "hash")
HELP = "Fine-tuning with few labels: KL-Norm, guided dropout and their controls."


class Commands(TyperGroup):
    """Turns an error that a user can mend into one message and exit code 2; ``--debug`` shows the traceback."""

    def invoke(self, ctx):
        """Run a command; see the class."""
        from klnorm_lib.study.errors import StudyError

        warnings.showwarning = _show_warning
        try:
            return super().invoke(ctx)
        except (ValueError, LookupError, OSError, FloatingPointError, StudyError) as error:
            if ctx.params.get("debug") or isinstance(error, BrokenPipeError):
                raise
            message = str(error) or type(error).__name__
            if "--json" in sys.argv or ctx.meta.get("json"):
                typer.echo(json.dumps({"error": message, "type": type(error).__name__}))
            else:
                Console(stderr=True, highlight=False).print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            Console(stderr=True).print(
                "interrupted; the same command starts a run again, and resumes a pretraining at its last checkpoint"
            )
            raise typer.Exit(130) from None


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    if issubclass(category, UserWarning):  # ours; the others are for developers
        Console(stderr=True, highlight=False).print(f"[yellow]Note:[/] {escape(str(message))}", soft_wrap=True)


app = typer.Typer(
    cls=Commands,
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def _version(value: bool) -> None:
    if value:
        from klnorm_lib import __version__

        typer.echo(f"klnorm {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Fine-tuning with few labels: KL-Norm, guided dropout and their controls."""


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _show(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width; the default of 80 would break every row
    console.print(table)


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the tasks: kind, rows, where they can be had now, licence."""
    from klnorm_lib.cli.lists import task_rows

    rows = task_rows()
    if as_json:
        _print_json(rows)
        return
    table = _table("task", "kind", "labels", "metric", "sources now", "rows", "out of domain", "licence")
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
    _show(table)
    if not os.environ.get("KLNORM_MIRROR"):
        Console(stderr=True).print("KLNORM_MIRROR is not set: only the hub and the built-in tasks can be used.")


def families(names: list[str]) -> str:
    """Names in a row, those of one family (``family/member``) counted."""
    counts = Counter(name.split("/")[0] for name in names)
    return ", ".join(f"{name} ({count})" if count > 1 else name for name, count in counts.items())


@app.command()
def methods(as_json: Json = False) -> None:
    """List the methods, their hyperparameters and defaults."""
    from klnorm_lib.cli.lists import method_rows

    rows = method_rows()
    if as_json:
        _print_json(rows)
        return
    table = _table("method", "what it does", "hyperparameters and defaults")
    for row in rows:
        fields = ", ".join(f"{name}={value!r}" for name, value in row["fields"].items())
        table.add_row(f"[bold]{row['name']}[/]", row["description"], fields or "–")
    _show(table)


@app.command()
def encoders(as_json: Json = False) -> None:
    """List the encoders that can be used without the hub."""
    from klnorm_lib.cli.lists import encoder_rows

    rows = encoder_rows()
    if as_json:
        _print_json(rows)
        return
    table = _table("encoder", "source")
    for row in rows:
        table.add_row(f"[bold]{row['name']}[/]", row["source"])
    _show(table)
    Console(stderr=True).print("Besides these: any folder with config.json and safetensors, and any hub id.")


@app.command()
def mirror(
    names: Annotated[list[str], typer.Argument(metavar="TASK...", help="Tasks to fetch from the hub.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to fill; name it in KLNORM_MIRROR afterwards.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Fetch again what is there already.")] = False,
    as_json: Json = False,
) -> None:
    """Copy tasks from the hub into a folder for machines without a network."""
    from klnorm_lib.tasks.fill import fill_mirror

    err = Console(stderr=True, highlight=False)
    with err.status(f"fetching {', '.join(names)}"):
        done = fill_mirror(names, to, overwrite=overwrite, progress=lambda line: err.print(line, soft_wrap=True))
    if as_json:
        _print_json({"folder": str(to), "sets": done})
    else:
        err.print(f"{to} is ready; set KLNORM_MIRROR={to}", soft_wrap=True)


@app.command()
def run(
    task: Annotated[str | None, typer.Option(help="One of `klnorm tasks`.")] = None,
    encoder: Annotated[str, typer.Option(help="One of `klnorm encoders`, a folder, or a hub id.")] = "klnorm-tiny",
    method: Annotated[
        str, typer.Option(help="One of `klnorm methods`; plain means none, frozen and setfit are baselines.")
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
        str | None, typer.Option(metavar="FILE", help="A file of your own: CSV, TSV, JSON lines or parquet.")
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="COLUMN", help="Its text column.")] = None,
    text_pair: Annotated[str | None, typer.Option(metavar="COLUMN", help="Its second text column, if any.")] = None,
    audio: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Its column with paths of sound files, instead of a text.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Its label column.")] = None,
    ood: Annotated[bool, typer.Option(help="Predict the out-of-domain rows too.")] = True,
    test_rows: Annotated[int | None, typer.Option(help="Test on a fixed sample of so many rows at most.")] = None,
    ood_rows: Annotated[int | None, typer.Option(help="The same for each out-of-domain set.")] = None,
    records: Annotated[Path, typer.Option(help="Records file to append to.")] = Path("records/run.jsonl"),
    as_json: Json = False,
) -> None:
    """Fine-tune once and record what came out; a run that is already recorded is not done again."""
    options = {k: v for k, v in locals().items() if k not in ("method_arg", "records", "as_json")}
    from klnorm_lib.cli.lists import record_table
    from klnorm_lib.encoders import sources
    from klnorm_lib.study import Run
    from klnorm_lib.study import run as carry_out

    if learning_rate is None:
        options["learning_rate"] = sources.LEARNING_RATE if method == "frozen" else sources.learning_rate(encoder)
    asked = Run(**options, method_args=dict(parse_argument(text) for text in method_arg or []))
    record = carry_out(asked, records=records, progress=True)
    if as_json:
        _print_json({**record.to_dict(), "already_done": record.already_done, "records": str(records)})
        return
    _show(record_table(record, _table))
    Console(stderr=True, highlight=False).print(f"[dim]record {record.hash[:12]} in {records}[/]", soft_wrap=True)


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


@app.command("study")
def study_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A packaged study, or a YAML file of your own.")],
    part: Annotated[
        list[str] | None, typer.Option(help="Only this part; repeatable. The parts done by default if not given.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, dask or ray.")] = "local",
    jobs: Annotated[int, typer.Option(help="Runs at a time; on a GPU they share it.")] = 1,
    threads: Annotated[int, typer.Option(help="Torch threads of each run; part of a run's identity.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a Dask scheduler or Ray cluster that runs already.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="Records file to go on with.", show_default="records/NAME.jsonl")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what is recorded as failed.")] = False,
    notebook: Annotated[
        bool, typer.Option("--notebook", help="Each run in a notebook, kept executed beside the records.")
    ] = False,
    dry: Annotated[bool, typer.Option("--dry", help="List the runs and stop.")] = False,
    remake: Annotated[
        str | None, typer.Option(metavar="CELL", help="Do a committed cell again: TASK/SIZE/ENCODER/ARM.")
    ] = None,
    draws: Annotated[int | None, typer.Option(min=1, help="With --remake: only the first so many draws.")] = None,
    as_json: Json = False,
) -> None:
    """Carry out a grid of runs; the same command goes on where it was interrupted."""
    from klnorm_lib.cli import study as cli_study
    from klnorm_lib.sweep import grid
    from klnorm_lib.sweep.execution import Options

    asked = grid.load(name)
    path = Path("records") / f"{asked.name}.jsonl" if records is None else records
    if dry:
        rows = cli_study.plan(asked, path, part)
        if as_json:
            _print_json(rows)
        else:
            typer.echo("\n".join(f"{'# recorded: ' * row['recorded']}{row['command']}" for row in rows))
        return
    notebooks = path.with_suffix(".notebooks") if notebook else None
    options = Options(engine, jobs, threads, scheduler, retry, notebooks)
    err = Console(stderr=True, highlight=False)
    if remake is not None:
        remade = cli_study.again(name, remake, draws, options, part)
        if as_json:
            _print_json(cli_study.remade_dict(remade))
        else:
            table = _table("draw", f"{remade.metric} committed", "remade")
            for draw, *scores in zip(remade.draws, remade.committed, remade.remade, strict=True):
                table.add_row("/".join(map(str, draw)), *("–" if s is None else f"{s:.4f}" for s in scores))
            _show(table)
            err.print(cli_study.verdict(remade), markup=False, soft_wrap=True)
        raise typer.Exit(not remade.holds)
    summary = cli_study.carry_out(asked, path, part, options)
    if as_json:
        _print_json(cli_study.summary_dict(summary))
    else:
        err.print("\n".join(cli_study.summary_lines(summary)), markup=False, soft_wrap=True)
    raise typer.Exit(not summary.complete)


@app.command()
def pretrain(
    corpora: Annotated[list[str], typer.Option(metavar="PATH", help="File or folder of running text; repeatable.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where checkpoints and the finished encoder go.")],
    layers: Annotated[int | None, typer.Option(help="Transformer layers.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width.")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads.")] = None,
    vocab_size: Annotated[int | None, typer.Option(help="WordPiece vocabulary, trained on the corpora.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens per sequence.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sequences per step.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    warmup_steps: Annotated[int | None, typer.Option(help="Steps that the rate rises.")] = None,
    decay_fraction: Annotated[float | None, typer.Option(help="Last share of the steps, in which it falls.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    mask_probability: Annotated[float | None, typer.Option(help="Share of tokens to predict.")] = None,
    dropout: Annotated[float | None, typer.Option(help="In pretraining only.")] = None,
    warm_start: Annotated[
        bool | None, typer.Option(help="Start word embeddings from co-occurrence counts instead of noise.")
    ] = None,
    shorten: Annotated[bool | None, typer.Option(help="Cut most steps' sequences into shorter ones.")] = None,
    teacher: Annotated[str | None, typer.Option(help="An encoder to learn word and sentence vectors from.")] = None,
    distillation: Annotated[float | None, typer.Option(help="Weight of the teacher beside the masked words.")] = None,
    seed: Annotated[int | None, typer.Option(help="Weights, order and masks.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    checkpoint_steps: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long; the same command resumes.")] = None,
    as_json: Json = False,
) -> None:
    """Pretrain a small encoder on text of your own; the same command resumes an interrupted one."""
    options = {k: v for k, v in locals().items() if v is not None and k != "as_json"}
    from klnorm_lib.pretraining.text.pretrain import PretrainConfig
    from klnorm_lib.pretraining.text.pretrain import pretrain as start

    _show_summary(start(PretrainConfig(**{**options, "corpora": tuple(corpora)}), progress=not as_json), as_json)


@app.command("pretrain-speech")
def pretrain_speech(
    corpora: Annotated[list[str], typer.Option(metavar="PATH", help="File or folder of text to read; repeatable.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where speech, checkpoints and the encoder go.")],
    layers: Annotated[int | None, typer.Option(help="Transformer layers.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width.")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads.")] = None,
    channels: Annotated[int | None, typer.Option(help="Channels of the convolutions.")] = None,
    projection: Annotated[int | None, typer.Option(help="Width of the pooled vector.")] = None,
    shards: Annotated[int | None, typer.Option(help="Files of synthesised speech, without the held-out one.")] = None,
    shard_size: Annotated[int | None, typer.Option(help="Utterances a file.")] = None,
    word_fraction: Annotated[float | None, typer.Option(help="Share of utterances that are single words.")] = None,
    flite_fraction: Annotated[float | None, typer.Option(help="Share read by flite, the rest by espeak-ng.")] = None,
    vocabulary: Annotated[int | None, typer.Option(help="Three words in four are among so many frequent ones.")] = None,
    sound_fraction: Annotated[float | None, typer.Option(help="Share of other sounds in batches of phrases.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Words a step.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    warmup_steps: Annotated[int | None, typer.Option(help="Steps that the rate rises.")] = None,
    decay_fraction: Annotated[float | None, typer.Option(help="Last share of the steps, in which it falls.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    seed: Annotated[int | None, typer.Option(help="Weights, voices, order and augmentation.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    checkpoint_steps: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long; the same command resumes.")] = None,
    as_json: Json = False,
) -> None:
    """Synthesise speech and pretrain a small audio encoder on it; the same command resumes an interrupted one."""
    options = {k: v for k, v in locals().items() if v is not None and k != "as_json"}
    from klnorm_lib.pretraining.speech.pretrain import SpeechPretrainConfig
    from klnorm_lib.pretraining.speech.pretrain import pretrain as start

    _show_summary(start(SpeechPretrainConfig(**{**options, "corpora": tuple(corpora)}), progress=not as_json), as_json)


app.command("fisher")(cli_fisher.fisher)
app.command("mlm-head")(cli_fisher.mlm_head)


def _show_summary(summary: dict, as_json: bool) -> None:
    if as_json:
        _print_json(summary)
        return
    table = _table("pretraining", "")
    for name, value in summary.items():
        if not isinstance(value, dict):
            table.add_row(name, str(value))
    _show(table)


@app.command()
def report(
    records: Annotated[
        list[Path] | None, typer.Option(help="Records file; repeatable. All packaged ones and yours if not given.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="First move broken lines to FILE.broken.")] = False,
    every: Annotated[
        bool, typer.Option("--every", help="One row a run, not one row a set of seeds; --json has all.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the results page as markdown.")] = False,
    as_json: Json = False,
) -> None:
    """Show the records as a table: every point, and how many seeds there are."""
    from klnorm_lib import pages as tables
    from klnorm_lib import study
    from klnorm_lib.pages.tables import cell, packaged

    here = Path("records/run.jsonl")
    files = list(records) if records else [*packaged(), *([here] if here.is_file() else [])]
    if not files:
        raise FileNotFoundError("no records yet; `klnorm run` writes records/run.jsonl, --records names another file")
    if repair:
        for path in files:
            count = study.repair(path)
            told = f"{count} broken line{'s' * (count != 1)} moved to {path}.broken" if count else "nothing was broken"
            Console(stderr=True).print(f"{path}: {told}", soft_wrap=True)
    found = [record for path in files for record in study.read_records(path)]
    if as_json:
        _print_json([record.to_dict() for record in found])
        return
    if markdown:
        typer.echo(tables.results_page(files))
        return
    frame = tables.frame(found)[[*EVERY]] if every else tables.summary(found)
    table = _table(*map(str, frame.columns))
    for row in frame.itertuples(index=False, name=None):
        table.add_row(*(cell(value) for value in row))
    _show(table)
    for record in found:
        if record.status == "failed":
            Console(stderr=True).print(
                f"failed: {record.command}\n  {record.error['message']}", markup=False, soft_wrap=True
            )
