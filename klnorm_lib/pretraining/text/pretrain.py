"""Masked-language-model pretraining of the encoders we ship: resumable, seeded, on CPU or GPU.

Every batch and every mask is a function of (seed, step) alone, so a resumed run sees what an uninterrupted one
would have seen. Only the vocabulary is not reproducible: the tokenizer trainer breaks ties at random; it is
trained once and kept. Method: Devlin et al. 2019, without next-sentence prediction; the rate falls linearly over the
last fifth of the steps. A teacher, if there is one, is listened to beside the masked words, never instead of them.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from klnorm_lib.encoders.corpora import documents
from klnorm_lib.encoders.sources import portable
from klnorm_lib.pretraining import checkpoint, schedule
from klnorm_lib.pretraining.dtype import declare_float32
from klnorm_lib.pretraining.text.cooccurrence import ppmi_vectors, principal
from klnorm_lib.pretraining.text.distillation import Distiller, Targets, Teacher

SHARD = 15_900_000  # bytes: a larger encoder is cut into files that a repository can hold
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class PretrainConfig:
    """What to pretrain, on what, and for how long.

    ``corpora``: files or folders of running text. ``out``: where checkpoints and the finished encoder go.
    ``length``: tokens a sequence; ``batch_size``: sequences a step; ``minutes``: stop after that long and resume
    later (0: run to the last step). ``warm_start``: word embeddings start from co-occurrence counts of the corpora
    and the output bias from word frequencies, instead of noise and zero. ``dropout`` is used in training only; the
    saved configuration keeps 0.1, the value fine-tuning starts from. ``shorten``: most steps read their sequences cut
    into 2, 3 or 6 pieces, since the texts of tasks are short. ``teacher``: an encoder (folder, mirror or hub id)
    whose word and sentence vectors the student learns to predict beside the masked words, ``distillation`` times as
    loud; half of every word embedding then starts from the teacher's vector of that word, and the pooled vector of
    [CLS] is trained and kept.
    """

    corpora: tuple[str, ...]
    out: str
    layers: int = 2
    hidden_size: int = 128
    heads: int = 2
    vocab_size: int = 8192
    length: int = 128
    batch_size: int = 64
    steps: int = 10_000
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    decay_fraction: float = 0.2
    weight_decay: float = 0.01
    mask_probability: float = 0.15
    dropout: float = 0.0
    warm_start: bool = True
    shorten: bool = False
    teacher: str = ""
    distillation: float = 4.0
    seed: int = 0
    device: str = "auto"
    checkpoint_steps: int = 500
    minutes: float = 0.0

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise ValueError(f"{self.heads} heads do not divide hidden_size {self.hidden_size}")
        if not 0 < self.mask_probability < 1:
            raise ValueError(f"mask_probability must lie between 0 and 1, got {self.mask_probability}")
        if min(self.steps, self.batch_size, self.checkpoint_steps) < 1 or self.length < 8:
            raise ValueError("steps, batch_size and checkpoint_steps must be at least 1, length at least 8")
        if self.distillation <= 0:
            raise ValueError(f"distillation must be positive, got {self.distillation}; or leave the teacher out")


def pretrain(config: PretrainConfig, progress: bool = True) -> dict:
    """Pretrain an encoder, resuming from the newest checkpoint in ``config.out``; returns its summary.

    Writes ``model.safetensors`` (float16), ``config.json``, tokenizer files and ``pretraining.json`` (held-out
    loss in nats a masked token, tokens seen, seconds, hardware) to ``config.out`` when the last step is done.
    Raises ``ValueError`` when a checkpoint there belongs to another configuration.
    """
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    paths = [Path(p) for p in config.corpora]
    tokenizer = _tokenizer(config, paths, out)
    train, heldout = _sequences(config, paths, out, tokenizer)
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    )
    teacher = None
    if config.teacher:
        teacher = Teacher(config.teacher, _pieces(tokenizer), len(SPECIAL), device)
    model = _model(config, tokenizer)
    learner = _Learner(model, teacher.width if teacher else 0).to(device)
    optimiser = torch.optim.AdamW(
        schedule.groups(learner, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98)
    )
    if config.warm_start and not (out / "checkpoint.pt").exists():
        _warm_start(model, train, config, teacher)
    progressed = checkpoint.resume(config, out, learner, optimiser, device)
    step, seconds = progressed.get("step", 0), progressed.get("seconds", 0.0)
    started = time.monotonic()
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn(), disable=not progress) as bar:
        task = bar.add_task("pretraining", total=config.steps, completed=step)
        while step < config.steps:
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * schedule.rate(step, config)
            rows = _rows(config, train, step)
            batch = _mask(rows, tokenizer, config, _generator(config, step), device)
            masked, distance = learner(*batch, teacher.targets(rows) if teacher else None)
            loss = masked + config.distillation * distance
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss is {loss.item()} at step {step}; lower --learning-rate and resume")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            optimiser.step()
            step += 1
            suffix = f", teacher {distance.item():.3f}" if teacher else ""
            bar.update(task, completed=step, description=f"masked {masked.item():.3f}{suffix}")
            elapsed = time.monotonic() - started
            stop = config.minutes and elapsed > 60 * config.minutes
            if step % config.checkpoint_steps == 0 or step == config.steps or stop:
                checkpoint.save(config, out, learner, optimiser, step=step, seconds=seconds + elapsed)
            if stop:
                break
    summary = {
        "step": step,
        "tokens_seen": step * config.batch_size * config.length,
        "train_tokens": int(train.size),
        "seconds": round(seconds + time.monotonic() - started, 1),
        "heldout_loss": evaluate(model, heldout, tokenizer, config, device),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "teacher": teacher.source.provenance() if teacher else None,
        "config": asdict(config)
        | {
            "corpora": [p.name for p in paths],
            "out": out.name,
            "teacher": portable(config.teacher) if config.teacher else "",
        },
    }
    (out / "pretraining.json").write_text(json.dumps(summary, indent=1) + "\n")
    if step == config.steps:
        export(model, tokenizer, out)
    return summary


class _Learner(torch.nn.Module):
    """The masked-language model and, with a teacher, the maps to its vectors: all that is trained."""

    def __init__(self, model, teacher_width: int) -> None:
        from transformers.models.bert.modeling_bert import BertPooler

        super().__init__()
        self.model = model
        self.distiller = None
        if teacher_width:
            model.bert.pooler = BertPooler(model.config)
            self.distiller = Distiller(model.config.hidden_size, teacher_width)

    def forward(self, input_ids: Tensor, targets: Tensor, teacher: Targets | None) -> tuple[Tensor, Tensor]:
        with torch.autocast(input_ids.device.type, dtype=torch.bfloat16):
            outputs = self.model.base_model(input_ids=input_ids)
        masked = _masked_loss(self.model, outputs.last_hidden_state, targets)
        if teacher is None:
            return masked, masked.new_zeros(())
        return masked, self.distiller(outputs.last_hidden_state, outputs.pooler_output, teacher)


def masked_loss(model, input_ids: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over masked positions, nats; logits are computed only there.

    Shapes: ``input_ids``, ``targets`` (batch, length), targets -100 where nothing is predicted.
    """
    with torch.autocast(input_ids.device.type, dtype=torch.bfloat16):
        hidden = model.base_model(input_ids=input_ids).last_hidden_state
    return _masked_loss(model, hidden, targets)


def _masked_loss(model, hidden: Tensor, targets: Tensor) -> Tensor:
    chosen = targets != -100
    with torch.autocast(hidden.device.type, dtype=torch.bfloat16):
        logits = model.cls(hidden[chosen])
    return F.cross_entropy(logits.float(), targets[chosen])


@torch.no_grad()
def evaluate(model, sequences: np.ndarray, tokenizer, config: PretrainConfig, device, batches: int = 64) -> float:
    """Held-out masked loss in nats a token, with masks drawn from a fixed seed of their own."""
    model.eval()
    total = []
    for i in range(min(batches, max(1, len(sequences) // 32))):
        rows = torch.from_numpy(sequences[32 * i : 32 * (i + 1)].astype(np.int64))
        total.append(
            masked_loss(model, *_mask(rows, tokenizer, config, torch.Generator().manual_seed(i), device)).item()
        )
    model.train()
    return round(float(np.mean(total)), 4)


def export(model, tokenizer, out: Path) -> None:
    """Write the encoder with its masked-LM head (and pooler, if trained), dropout 0.1: float16, loaded as float32."""
    config = model.config
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.1
    model.to("cpu", torch.float16).save_pretrained(out, max_shard_size=SHARD)
    declare_float32(out)
    tokenizer.save_pretrained(out)


def _model(config: PretrainConfig, tokenizer):
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(config.seed)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.hidden_size,
            max_position_embeddings=512,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).train()


@torch.no_grad()
def _warm_start(model, sequences: np.ndarray, config: PretrainConfig, teacher: Teacher | None) -> None:
    words = model.get_input_embeddings().weight
    taught = words.shape[1] // 2 if teacher else 0
    vectors = ppmi_vectors(sequences, len(words), words.shape[1] - taught, seed=config.seed)
    if teacher:
        vectors = np.hstack([vectors, principal(teacher.static(), taught)])
    words.copy_(0.06 * torch.from_numpy(vectors))  # well above the 0.02 of the position embeddings that are added to it
    frequency = torch.from_numpy(np.bincount(sequences.ravel(), minlength=len(words)) + 1.0).float()
    model.cls.predictions.bias.copy_(torch.log(frequency / frequency.sum()))


def _tokenizer(config: PretrainConfig, paths: list[Path], out: Path):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertTokenizerFast, PreTrainedTokenizerFast

    if (out / "tokenizer.json").exists():
        return PreTrainedTokenizerFast.from_pretrained(out, trust_remote_code=False)
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size, special_tokens=SPECIAL, limit_alphabet=400, show_progress=False
    )
    raw.train_from_iterator((text for i, text in enumerate(documents(paths)) if i % 4 == 0), trainer)
    raw.post_processor = processors.BertProcessing(
        ("[SEP]", raw.token_to_id("[SEP]")), ("[CLS]", raw.token_to_id("[CLS]"))
    )
    tokenizer = BertTokenizerFast(tokenizer_object=raw, do_lower_case=True, model_max_length=512)
    tokenizer.save_pretrained(out)
    return tokenizer


def _sequences(config: PretrainConfig, paths: list[Path], out: Path, tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Token ids cut into sequences with [CLS] and [SEP]; every 200th document is held out. Cached in ``out``."""
    files = [out / "train.npy", out / "heldout.npy"]
    if not all(f.exists() for f in files):
        pieces: list[list[np.ndarray]] = [[], []]
        chunk: list[str] = []
        seen = 0

        def flush() -> None:
            nonlocal seen
            for encoding in tokenizer.backend_tokenizer.encode_batch(chunk, add_special_tokens=False):
                ids = np.array([*encoding.ids, tokenizer.sep_token_id], dtype=np.uint16)
                pieces[int(seen % 200 == 199)].append(ids)
                seen += 1
            chunk.clear()

        for text in documents(paths):
            chunk.append(text)
            if len(chunk) == 256:
                flush()
        flush()
        body = config.length - 2
        for file, part in zip(files, pieces, strict=True):
            ids = np.concatenate(part) if part else np.zeros(0, np.uint16)
            if len(ids) < body:
                raise ValueError(
                    "too little text: a split has less than one sequence; add corpora (200 documents or more)"
                )
            rows = ids[: len(ids) // body * body].reshape(-1, body)
            edge = np.ones((len(rows), 1), np.uint16)
            rows = np.hstack([edge * tokenizer.cls_token_id, rows, edge * tokenizer.sep_token_id])
            with open(f"{file}.part", "wb") as handle:
                np.save(handle, rows)
            os.replace(f"{file}.part", file)
    return np.load(files[0], mmap_mode="r"), np.load(files[1], mmap_mode="r")


def _rows(config: PretrainConfig, sequences: np.ndarray, step: int) -> Tensor:
    """The token ids of one step, a function of (seed, step) alone."""
    per_epoch = max(1, len(sequences) // config.batch_size)
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng([config.seed, epoch]).permutation(len(sequences))
    rows = sequences[np.sort(order[position * config.batch_size : (position + 1) * config.batch_size])].astype(np.int64)
    if not config.shorten:
        return torch.from_numpy(rows)
    body = rows[:, 1:-1]
    fitting = [n for n in (1, 2, 3, 6) if body.shape[1] % n == 0]
    parts = int(np.random.default_rng([config.seed, step, 1]).choice(fitting))
    body = body.reshape(parts * len(rows), -1)
    edges = np.repeat(rows[:, [0, -1]], parts, axis=0)
    return torch.from_numpy(np.hstack([edges[:, :1], body, edges[:, 1:]]))


def _generator(config: PretrainConfig, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(config.seed * 1_000_003 + step)


def _mask(rows: Tensor, tokenizer, config: PretrainConfig, generator: torch.Generator, device) -> tuple[Tensor, Tensor]:
    """BERT's corruption: of the chosen tokens 80 % become [MASK], 10 % a random token, 10 % stay."""
    special = rows < len(SPECIAL)
    chosen = (torch.rand(rows.shape, generator=generator) < config.mask_probability) & ~special
    chosen[:, 1] |= ~chosen.any(1)
    kind = torch.rand(rows.shape, generator=generator)
    noise = torch.randint(len(SPECIAL), len(tokenizer), rows.shape, generator=generator)
    inputs = torch.where(chosen & (kind < 0.8), tokenizer.mask_token_id, rows)
    inputs = torch.where(chosen & (kind >= 0.9), noise, inputs)
    return inputs.to(device), rows.masked_fill(~chosen, -100).to(device)


def _pieces(tokenizer) -> list[str]:
    return tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
