"""The Fisher information of a pretrained model from running text: resumable, seeded, with its origin.

Sequence i and its masks are functions of (seed, i) alone, sums are added up in blocks of fixed size and order, and only
whole blocks are kept on disk: an interrupted run that goes on gives the very numbers of one that was not interrupted,
and a larger n goes on from a smaller one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from klnorm_lib.encoders.corruption import Corruption
from klnorm_lib.encoders.language_model import load_language_model
from klnorm_lib.encoders.sources import portable
from klnorm_lib.encoders.windows import checksums, corpus, windows
from klnorm_lib.probes.fisher.core import FisherSum
from klnorm_lib.probes.fisher.partial import Partial
from klnorm_lib.probes.fisher.table import FisherTable, save_fisher, without_prefix

LABELS = ("true", "model")
_FREE = ("out", "n", "device", "minutes", "save_seconds", "dtype")  # what may differ when a run goes on
_LABELS = 2  # which stream of random numbers, beside those of windows and masks


@dataclass(frozen=True)
class FisherConfig:
    """Of which model, on which text, and where the result goes.

    ``model``: built-in encoder, folder, mirror or hub id, with the head it was pretrained with. ``text``: files,
    folders, or names of corpora in ``KLNORM_MIRROR``. ``out``: folder for ``table.json``, ``fisher.safetensors``,
    ``blocks.json`` and the partial sums. ``n``: sequences. ``length``: tokens a sequence. ``labels``: the ``true``
    tokens (empirical Fisher information), or tokens drawn from the ``model``'s own predictions (true Fisher
    information). ``method``, ``batch_size``: how it is computed, see ``diagonal_fisher``. ``block``: sequences of which
    sums are kept, for intervals. ``dtype``: of the tensors on disk. ``minutes``: stop after that long and go on later
    (0: to the end).
    """

    model: str
    text: tuple[str, ...]
    out: str
    n: int = 1000
    length: int = 128
    mask_probability: float = 0.15
    seed: int = 0
    labels: str = "true"
    kind: str = "auto"
    head: str = ""
    source: str = "auto"
    method: str = "hooks"
    batch_size: int = 10
    block: int = 10
    dtype: str = "float32"
    device: str = "auto"
    minutes: float = 0.0
    save_seconds: float = 30.0

    def __post_init__(self) -> None:
        if min(self.n, self.batch_size, self.block) < 1:
            raise ValueError("n, batch_size and block must be at least 1")
        if self.labels not in LABELS:
            raise ValueError(f"unknown labels {self.labels!r}; choose one of {', '.join(LABELS)}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")


def estimate(config: FisherConfig, machine: Mapping[str, Any] | None = None, progress: bool = True) -> dict[str, Any]:
    """Compute, or go on computing, the Fisher information; returns its provenance, with ``done`` of ``n`` sequences.

    ``machine``: versions and hardware, kept with the result. Raises ``ValueError`` when ``config.out`` holds the
    beginning of another computation, saying in what it differs, and what loading model and text raises.
    """
    out, started = Path(config.out), time.monotonic()
    model, tokenizer, weights = load_language_model(config.model, config.source, config.kind, config.head or None)
    record = provenance(config, weights)
    partial = Partial.resume(out, record)
    if config.n < partial.done:
        raise ValueError(f"{out} has {partial.done} sequences already, more than the {config.n} asked for")
    corrupt = Corruption(weights["kind"], tokenizer, config.mask_probability, config.seed)
    text = windows([corpus(c) for c in config.text], tokenizer, config.n, config.length, config.seed)
    model.to(_device(config.device))
    result, saved, before = partial, time.monotonic(), partial.seconds
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Fisher information"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    out.mkdir(parents=True, exist_ok=True)
    with FisherSum(model, method=config.method) as fisher, Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("", total=config.n, completed=partial.done)
        try:
            # How it is computed is found out on the first sequences, also by a run that goes on from later ones.
            if result.done < config.n:
                fisher.prepare(next(_batches(model, text, range(min(config.n, config.block)), corrupt, config)))
            while result.done < config.n:
                block = range(result.done, min(config.n, result.done + config.block))
                found, predicted = _block(fisher, text, block, corrupt, config)
                result = partial.plus(found, predicted, len(block))
                if len(block) == config.block:  # a last, shorter one is not built on
                    partial = result
                bar.update(task, completed=result.done)
                partial.seconds = before + time.monotonic() - started
                stop = config.minutes and time.monotonic() - started > 60 * config.minutes
                if stop or time.monotonic() - saved > config.save_seconds:
                    partial.save(out)
                    saved = time.monotonic()
                if stop:
                    break
        finally:
            partial.save(out)
    record |= {"sequences": result.done, "tokens": sum(map(len, text[: result.done])), "predicted": result.predicted}
    record |= {"seconds": round(before + time.monotonic() - started, 1), **dict(machine or {})}
    if result.done == config.n:
        _finish(result, record, model.base_model_prefix, out, getattr(torch, config.dtype))
    return {**record, "done": result.done, "n": config.n}


def provenance(config: FisherConfig, weights: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the numbers, but for how many sequences there are."""
    kept = {k: v for k, v in asdict(config).items() if k not in (*_FREE, "source", "head", "text", "kind", "model")}
    encoder = weights["encoder"]
    return {
        "model": portable(config.model),
        **{key: encoder[key] for key in ("source", "revision", "sha256")},
        "kind": weights["kind"],
        "head": weights["head"],
        "corpora": checksums([corpus(c) for c in config.text]),
        "loss": "mean cross-entropy over the predicted tokens of one sequence, nats; evaluation mode",
        **kept,
    }


def _block(
    fisher: FisherSum, text: list[list[int]], block: range, corrupt: Corruption, config: FisherConfig
) -> tuple[dict[str, Tensor], int]:
    """Mean squared gradients over the sequences of a block, and how many tokens were predicted."""
    fisher.clear()
    shift = corrupt.kind == "causal"  # of which the first token is not predicted
    predicted = 0
    for batch in _batches(fisher.model, text, block, corrupt, config):
        fisher.add(batch)
        predicted += int((batch["labels"][:, shift:] != -100).sum())
    return fisher.mean(), predicted


def _batches(
    model: nn.Module, text: list[list[int]], block: range, corrupt: Corruption, config: FisherConfig
) -> Iterator[dict[str, Tensor]]:
    """The batches of a block of sequences."""
    device = next(model.parameters()).device
    for first in range(block.start, block.stop, config.batch_size):
        batch = corrupt(text[first : min(first + config.batch_size, block.stop)], first)
        batch = {key: value.to(device) for key, value in batch.items()}
        if config.labels == "model":
            batch["labels"] = drawn_labels(model, batch, config.seed, first)
        yield batch


@torch.no_grad()
def drawn_labels(model: nn.Module, batch: Mapping[str, Tensor], seed: int, first: int) -> Tensor:
    """Labels like those of ``batch``, but drawn from the model's predictions: those of the true Fisher information.

    ``batch``: of a masked language model; its sequences are number ``first`` and those that follow, and the draw of
    each is a function of (seed, number). Shapes: (batch, length), -100 where nothing is predicted.
    """
    labels = batch["labels"].clone()
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    for row, here in enumerate(labels):
        predicted_here = here != -100
        state = int(np.random.default_rng([seed, first + row, _LABELS]).integers(2**62))
        probability = logits[row, predicted_here].float().softmax(-1).cpu()
        drawn = torch.multinomial(probability, 1, generator=torch.Generator().manual_seed(state))
        here[predicted_here] = drawn[:, 0].to(labels.device)
    return labels


def _finish(result: Partial, record: dict[str, Any], base: str, out: Path, dtype: torch.dtype) -> None:
    fisher = without_prefix(result.mean(), base)
    FisherTable.of(fisher, **record).save(out / "table.json")
    save_fisher(out / "fisher.safetensors", fisher, record, dtype)
    kept = {"provenance": record, "tensors": list(fisher), "numel": [tensor.numel() for tensor in fisher.values()]}
    kept |= {"sequences": result.sizes, "sums": result.blocks}
    (out / "blocks.part").write_text(json.dumps(kept) + "\n")
    os.replace(out / "blocks.part", out / "blocks.json")


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
