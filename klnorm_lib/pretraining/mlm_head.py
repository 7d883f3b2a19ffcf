"""A masked-LM head for an encoder that came without one, trained on the frozen encoder.

BERT's head (Devlin et al. 2019): dense layer, activation, layer normalisation, and a decoder that is tied to the word
embeddings, with a bias of its own. Only the head learns. The dense layer starts as the identity and the bias as the
logarithm of word frequencies, so a fresh head reads the hidden state as a word embedding already.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from klnorm_lib.encoders.corruption import Corruption
from klnorm_lib.encoders.language_model import head_parameters
from klnorm_lib.encoders.loading import _quietly
from klnorm_lib.encoders.no_code import open_pretrained
from klnorm_lib.encoders.sources import portable, resolve
from klnorm_lib.encoders.windows import checksums, corpus, windows

HELD_OUT = 256  # windows of documents that are not trained on


@dataclass(frozen=True)
class MLMHeadConfig:
    """Of which encoder, on which text, and for how long.

    ``model``: a BERT-like encoder: built-in, folder, mirror or hub id. ``text``: files, folders, or names of corpora in
    ``KLNORM_MIRROR``; every 200th document is held out. ``out``: folder for the head. ``steps`` of ``batch_size``
    sequences of ``length`` tokens; the learning rate falls linearly to zero.
    """

    model: str
    text: tuple[str, ...]
    out: str
    steps: int = 400
    batch_size: int = 32
    length: int = 128
    mask_probability: float = 0.15
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    seed: int = 0
    source: str = "auto"

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1:
            raise ValueError("steps and batch_size must be at least 1")


def train_head(config: MLMHeadConfig, machine: Mapping[str, Any] | None = None, progress: bool = True) -> dict:
    """Train the head and write ``model.safetensors`` (float16) and ``training.json`` to ``config.out``; its summary.

    The summary holds the held-out loss in nats a masked token of the fresh head, of one that knows word frequencies
    only, and of the trained one. ``machine``: versions and hardware, kept with it. Raises ``ValueError`` for an encoder
    whose masked language model has another head than BERT's, and what finding model and text raises.
    """
    from safetensors.torch import save_file

    started = time.monotonic()
    model, tokenizer, found = _fresh(config)
    paths = [corpus(c) for c in config.text]
    corrupt = Corruption("masked", tokenizer, config.mask_probability, config.seed)
    text = windows(paths, tokenizer, config.steps * config.batch_size, config.length, config.seed, part="train")
    heldout = windows(paths, tokenizer, HELD_OUT, config.length, config.seed, part="heldout")
    head = head_parameters(model)
    frequency = _start(model, text)
    summary = {"heldout_loss_frequencies": _frequency_loss(corrupt, heldout, frequency)}
    summary["heldout_loss_fresh"] = evaluate(model, corrupt, heldout)
    model.requires_grad_(False)
    for parameter in head.values():
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(head.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    masked = 0
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("masked-LM head", total=config.steps)
        for step in range(config.steps):
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * min(1.0, (step + 1) / 20) * (1 - step / config.steps)
            first = step * config.batch_size
            hidden, targets = features(model, corrupt(text[first : first + config.batch_size], first))
            loss = F.cross_entropy(decode(model, hidden), targets)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss is {loss.item()} at step {step}; lower --learning-rate")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            masked += len(targets)
            bar.update(task, advance=1, description=f"masked {loss.item():.3f}")
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    kept = {name: parameter.detach().half().contiguous() for name, parameter in head.items()}
    for name, parameter in head.items():  # what is reported is what is shipped
        parameter.data.copy_(kept[name].float())
    summary |= {
        "heldout_loss": evaluate(model, corrupt, heldout),
        "heldout_windows": len(heldout),
        "masked_tokens": masked,
        "tokens_seen": sum(map(len, text)),
        "parameters": sum(p.numel() for p in head.values()),
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "encoder": {"name": portable(config.model), "sha256": found.sha256, "revision": found.revision},
        "corpora": checksums(paths),
        "config": asdict(config) | {"model": portable(config.model), "out": out.name, "text": [p.name for p in paths]},
        **dict(machine or {}),
    }
    save_file(kept, out / "model.safetensors", metadata={"format": "pt"})
    (out / "training.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    return summary


@torch.no_grad()
def features(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """``(hidden, targets)`` at the masked positions: (masked, width) of the frozen encoder, and (masked,) token ids."""
    with torch.autocast(batch["input_ids"].device.type, dtype=torch.bfloat16):
        hidden = model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
    chosen = batch["labels"] != -100
    return hidden[chosen].float(), batch["labels"][chosen]


def decode(model: nn.Module, hidden: Tensor) -> Tensor:
    """Logits (masked, vocabulary) in float32, of the masked positions only."""
    with torch.autocast(hidden.device.type, dtype=torch.bfloat16):
        return model.cls(hidden).float()


@torch.no_grad()
def evaluate(model: nn.Module, corrupt: Corruption, sequences: list[list[int]], batch_size: int = 32) -> float:
    """Mean cross-entropy over all masked tokens of the sequences, in nats; their masks are those of number 0, 1, ..."""
    total, count = 0.0, 0
    for first in range(0, len(sequences), batch_size):
        hidden, targets = features(model, corrupt(sequences[first : first + batch_size], first))
        total += F.cross_entropy(decode(model, hidden), targets, reduction="sum").item()
        count += len(targets)
    return round(total / count, 4)


def _fresh(config: MLMHeadConfig):
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    found = resolve(config.model, config.source)
    settings = open_pretrained(AutoConfig, found.location, revision=found.revision)
    if settings.model_type != "bert":
        raise ValueError(f"{config.model} is a {settings.model_type}; heads are trained for encoders of type bert")
    torch.manual_seed(config.seed)
    model = _quietly(AutoModelForMaskedLM, found, settings)
    return model.eval(), open_pretrained(AutoTokenizer, found.location, revision=found.revision), found


@torch.no_grad()
def _start(model: nn.Module, text: list[list[int]]) -> Tensor:
    """The dense layer becomes the identity, the bias the log-frequencies of words; returns these, (vocabulary,)."""
    head = model.cls.predictions
    counts = np.bincount(np.concatenate([np.asarray(ids) for ids in text]), minlength=model.config.vocab_size) + 1.0
    frequency = torch.from_numpy(np.log(counts / counts.sum())).float()
    head.transform.dense.weight.copy_(torch.eye(model.config.hidden_size))
    head.transform.dense.bias.zero_()
    head.bias.copy_(frequency)
    return frequency


def _frequency_loss(corrupt: Corruption, sequences: list[list[int]], frequency: Tensor) -> float:
    labels = [corrupt([ids], i)["labels"].ravel() for i, ids in enumerate(sequences)]
    targets = torch.cat(labels)
    return round(-frequency[targets[targets != -100]].mean().item(), 4)
