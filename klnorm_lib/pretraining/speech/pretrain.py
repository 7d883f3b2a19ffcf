"""Pretraining of a small Wav2Vec2-style encoder on synthesised speech: resumable, seeded, on CPU or GPU.

Every batch and every augmentation is a function of (seed, step) and of the synthesised corpus, so a resumed run sees
what an uninterrupted one would have seen. The prediction tasks are those of ``losses``, the filters of the first
convolution stay as they were made (``filterbank``); fine-tuning may move them.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from klnorm_lib.pretraining import checkpoint, schedule
from klnorm_lib.pretraining.speech import corpus as speech_corpus
from klnorm_lib.pretraining.speech.augment import RATE
from klnorm_lib.pretraining.speech.batches import Batches
from klnorm_lib.pretraining.speech.losses import IGNORE, SpeechModel
from klnorm_lib.pretraining.speech.model import encoder, export, geometry

WEIGHTS = {
    "phoneme": 1.0, "bag": 5.0, "thirds": 10.0, "voice": 0.3, "language": 0.1, "sound": 0.3, "prosody": 0.3,
    "making": 0.5, "statistics": 3.0,
}  # fmt: skip


@dataclass(frozen=True)
class SpeechPretrainConfig:
    """What to synthesise, what to pretrain, and for how long.

    ``corpora``: files or folders of running text to read aloud. ``out``: where shards, checkpoints and the finished
    encoder go. ``shards`` times ``shard_size`` utterances are synthesised, ``word_fraction`` of them single words
    (three in four from the ``vocabulary`` most frequent), ``flite_fraction`` by flite and the others by espeak-ng.
    ``channels``: of the convolutions; ``projection``: width of the pooled vector. ``batch_size``: words a step
    (of phrases fewer, ``sound_fraction`` of them sounds that are not speech). ``minutes``: stop after that long and
    resume later (0: run to the last step). There is no dropout in training; the saved configuration has 0.1, the
    value fine-tuning starts from. Raises ``ValueError`` for sizes that do not fit.
    """

    corpora: tuple[str, ...]
    out: str
    layers: int = 4
    hidden_size: int = 256
    heads: int = 4
    channels: int = 256
    projection: int = 384
    shards: int = 45
    shard_size: int = 1000
    word_fraction: float = 0.65
    flite_fraction: float = 0.2
    vocabulary: int = 2000
    sound_fraction: float = 0.4
    batch_size: int = 24
    steps: int = 4300
    learning_rate: float = 1.5e-3
    warmup_steps: int = 300
    decay_fraction: float = 0.3
    weight_decay: float = 0.01
    seed: int = 0
    device: str = "auto"
    checkpoint_steps: int = 250
    minutes: float = 0.0

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads or self.hidden_size % 16:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of 16 and of its {self.heads} heads")
        if self.channels % 4 or self.channels < 12:
            raise ValueError(f"channels must be a multiple of 4 and at least 12, got {self.channels}")
        if min(self.steps, self.checkpoint_steps, self.shards, self.shard_size, self.vocabulary) < 1:
            raise ValueError("steps, checkpoint_steps, shards, shard_size and vocabulary must be at least 1")
        if self.batch_size < 4:
            raise ValueError(f"batch_size must be at least 4, got {self.batch_size}")
        for name in ("word_fraction", "flite_fraction", "sound_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1 (1 not included), got {getattr(self, name)}")


def pretrain(config: SpeechPretrainConfig, progress: bool = True) -> dict:
    """Synthesise, pretrain, resuming from the newest checkpoint in ``config.out``; returns the summary.

    Writes the encoder (``model.safetensors`` in float16, ``config.json``, ``preprocessor_config.json``) when the last
    step is done, and ``pretraining.json`` (held-out phoneme accuracy of frames, sound seen, seconds, hardware).
    Raises ``ValueError`` for a checkpoint or shard that cannot be used, ``FileNotFoundError`` when shards are missing
    and no synthesiser is installed, ``FloatingPointError`` when the loss is not finite.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn(), disable=not progress) as bar:
        making = bar.add_task("synthesis", total=config.shards + 1)
        texts = speech_corpus.texts([Path(p) for p in config.corpora], out)
        files = speech_corpus.build(config, texts, out, lambda done: bar.update(making, completed=done))
        network = encoder(config)
        train = Batches(files[:-1], config, geometry(network.config))
        heldout = Batches(files[-1:], config, geometry(network.config), train.phonemes)
        scale = train.calibrate()
        numbers = train.numbers | {"statistics": scale.shape[1]}
        model = SpeechModel(network, len(train.phonemes), train.classes, numbers, WEIGHTS).to(device).train()
        optimiser = torch.optim.AdamW(
            schedule.groups(model, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98)
        )
        progressed = checkpoint.resume(config, out, model, optimiser, device)
        step, seconds, seen = (progressed.get(name, 0) for name in ("step", "seconds", "seen"))
        started = time.monotonic()
        task = bar.add_task("pretraining", total=config.steps, completed=step)
        while step < config.steps:
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * schedule.rate(step, config)
            batch = train.batch(step, scale)
            found = model.losses(batch.to(device))
            loss = model.total(found)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss is {loss.item()} at step {step}; lower --learning-rate and resume")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            step += 1
            seen += batch.lengths.sum().item() / RATE
            bar.update(task, completed=step, description=f"loss {loss.item():.3f}")
            elapsed = time.monotonic() - started
            stop = config.minutes and elapsed > 60 * config.minutes
            if step % config.checkpoint_steps == 0 or step == config.steps or stop:
                checkpoint.save(config, out, model, optimiser, step=step, seconds=seconds + elapsed, seen=seen)
            if stop:
                break
    summary = {
        "step": step,
        "audio_seconds_seen": round(seen),
        "corpus_seconds": round(train.seconds()),
        "utterances": len(train.words) + len(train.phrases),
        "phonemes": len(train.phonemes),
        "voices": train.count("voice"),
        "languages": train.count("language"),
        "seconds": round(seconds + time.monotonic() - started, 1),
        **evaluate(model, heldout, scale, device),
        "parameters": sum(p.numel() for p in network.parameters()),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "loss_weights": WEIGHTS,
        "config": asdict(config) | {"corpora": [Path(p).name for p in config.corpora], "out": out.name},
    }
    (out / "pretraining.json").write_text(json.dumps(summary, indent=1) + "\n")
    if step == config.steps:
        export(network, out)
    return summary


@torch.no_grad()
def evaluate(model: SpeechModel, heldout: Batches, scale, device, batches: int = 30) -> dict[str, float]:
    """Accuracy of the phoneme of a frame on augmented speech of held-out voices, words and phrases.

    ``heldout_phoneme_accuracy`` is over frames of speech, ``heldout_frame_accuracy`` over those of silence too; the
    ``chance`` of each is that of always saying the most frequent class.
    """
    model.eval()
    said, meant = [], []
    for step in range(batches):
        batch = heldout.batch(step, scale).to(device)
        last, _, mask = model.vectors(batch.sound, batch.lengths)
        keep = mask & (batch.frames != IGNORE)
        said.append(model.phoneme(last)[keep].argmax(-1).cpu())
        meant.append(batch.frames[keep].cpu())
    model.train()
    said, meant = torch.cat(said), torch.cat(meant)
    result = {}
    for name, part in (("phoneme", meant > 0), ("frame", meant >= 0)):
        right = (said == meant)[part].float().mean().item()
        most = meant[part].bincount().max().item() / max(1, part.sum().item())
        result |= {f"heldout_{name}_accuracy": round(right, 4), f"heldout_{name}_chance": round(most, 4)}
    return result
