"""``klnorm fisher`` and ``klnorm mlm-head``: the importance of each weight, and the head that measuring it needs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from klnorm_lib.cli import completion, output
from klnorm_lib.cli.application import app
from klnorm_lib.encoders.sources import resolve
from klnorm_lib.encoders.windows import corpus

MODEL = typer.Option(help="One of `klnorm encoders`, a folder, or a hub id.", autocompletion=completion.encoder)
TEXT = typer.Option(metavar="CORPUS", help="File or folder of running text, or a corpus of KLNORM_MIRROR; repeatable.")
SHOWN = ("model", "kind", "sequences", "tokens", "predicted", "length", "mask_probability", "labels", "seed", "seconds")


@app.command()
def fisher(
    model: Annotated[str, MODEL],
    text: Annotated[list[str], TEXT],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where partial sums and the result go.")],
    n: Annotated[int, typer.Option(help="Sequences; a larger number goes on from a smaller one.")] = 1000,
    length: Annotated[int, typer.Option(help="Tokens a sequence.")] = 128,
    mask_probability: Annotated[float, typer.Option(help="Share of tokens to predict (masked and seq2seq).")] = 0.15,
    seed: Annotated[int, typer.Option(help="Which text, and which masks.")] = 0,
    labels: Annotated[str, typer.Option(help="true tokens, or model: drawn from the model's predictions.")] = "true",
    kind: Annotated[str, typer.Option(help="auto, masked, causal or seq2seq.")] = "auto",
    head: Annotated[str, typer.Option(metavar="FOLDER", help="A masked-LM head made by `klnorm mlm-head`.")] = "",
    source: Annotated[str, typer.Option(help="Of the model: auto, hub, mirror or built-in.")] = "auto",
    method: Annotated[str, typer.Option(help="hooks, func or loop: three ways to the same numbers.")] = "hooks",
    batch_size: Annotated[int, typer.Option(help="Sequences at a time.")] = 10,
    block: Annotated[int, typer.Option(help="Sequences whose sums are kept by themselves, for intervals.")] = 10,
    dtype: Annotated[str, typer.Option(help="Of the tensors on disk: float32 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    minutes: Annotated[float, typer.Option(help="Stop after so long; the same command goes on.")] = 0.0,
    save_seconds: Annotated[float, typer.Option(help="How often partial sums are written.")] = 30.0,
    as_json: output.Json = False,
) -> None:
    """Fisher information of a pretrained model's own loss; the same command goes on with an interrupted one."""
    options = {k: v for k, v in locals().items() if k not in ("text", "as_json")}
    check_sources(model, source, text)
    from klnorm_lib.probes.fisher.estimate import FisherConfig, estimate

    found = estimate(FisherConfig(text=tuple(text), **options), machine(), progress=not as_json)
    rows = {name: found[name] for name in SHOWN}
    rows["written to"] = out if found["done"] == n else f"{out} (partial: {found['done']} of {n} sequences)"
    _show("Fisher information", found, rows, as_json)


@app.command("mlm-head")
def mlm_head(
    model: Annotated[str, MODEL],
    text: Annotated[list[str], TEXT],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where the head goes.")],
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 400,
    batch_size: Annotated[int, typer.Option(help="Sequences per step.")] = 32,
    length: Annotated[int, typer.Option(help="Tokens a sequence.")] = 128,
    mask_probability: Annotated[float, typer.Option(help="Share of tokens to predict.")] = 0.15,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Which text, and which masks.")] = 0,
    source: Annotated[str, typer.Option(help="Of the model: auto, hub, mirror or built-in.")] = "auto",
    as_json: output.Json = False,
) -> None:
    """Train a masked-LM head on a frozen encoder that came without one, so that its Fisher information can be had."""
    options = {k: v for k, v in locals().items() if k not in ("text", "as_json")}
    check_sources(model, source, text)
    from klnorm_lib.pretraining.mlm_head import MLMHeadConfig, train_head

    found = train_head(MLMHeadConfig(text=tuple(text), **options), machine(), progress=not as_json)
    _show("masked-LM head", found, found, as_json)


def check_sources(model: str, source: str, text: list[str]) -> None:
    """Raise what a wrong name of a model or a corpus raises, before anything slow is imported."""
    resolve(model, source)
    for name in text:
        corpus(name)


def machine() -> dict[str, Any]:
    """Versions and hardware, for the provenance of what is computed here."""
    from klnorm_lib.study.machine import hardware, versions

    return {"versions": versions(), "hardware": hardware()}


def _show(title: str, found: dict[str, Any], rows: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(found)
    else:
        output.show_pairs(title, rows)
