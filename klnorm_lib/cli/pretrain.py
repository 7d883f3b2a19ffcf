"""``klnorm pretrain`` and ``klnorm pretrain-speech``: small encoders from text or speech of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from klnorm_lib.cli import completion, output
from klnorm_lib.cli.application import app
from klnorm_lib.encoders.corpora import files


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
    teacher: Annotated[
        str | None,
        typer.Option(help="An encoder to learn word and sentence vectors from.", autocompletion=completion.encoder),
    ] = None,
    distillation: Annotated[float | None, typer.Option(help="Weight of the teacher beside the masked words.")] = None,
    seed: Annotated[int | None, typer.Option(help="Weights, order and masks.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    checkpoint_steps: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long; the same command resumes.")] = None,
    as_json: output.Json = False,
) -> None:
    """Pretrain a small encoder on text of your own; the same command resumes an interrupted one."""
    options = {k: v for k, v in locals().items() if v is not None and k != "as_json"}
    for path in corpora:
        files(Path(path))  # a wrong path is refused before torch is imported
    from klnorm_lib.pretraining.text.pretrain import PretrainConfig
    from klnorm_lib.pretraining.text.pretrain import pretrain as start

    _show(start(PretrainConfig(**{**options, "corpora": tuple(corpora)}), progress=not as_json), as_json)


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
    as_json: output.Json = False,
) -> None:
    """Synthesise speech and pretrain a small audio encoder on it; the same command resumes an interrupted one."""
    options = {k: v for k, v in locals().items() if v is not None and k != "as_json"}
    for path in corpora:
        files(Path(path))  # a wrong path is refused before torch is imported
    from klnorm_lib.pretraining.speech.pretrain import SpeechPretrainConfig
    from klnorm_lib.pretraining.speech.pretrain import pretrain as start

    _show(start(SpeechPretrainConfig(**{**options, "corpora": tuple(corpora)}), progress=not as_json), as_json)


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(summary)
    else:
        output.show_pairs("pretraining", summary)
