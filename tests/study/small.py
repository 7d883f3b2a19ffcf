"""A small encoder with a WordPiece vocabulary of its own, a file of texts, and runs on them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, BertTokenizerFast

from klnorm_lib.study import Run

WORDS = """
    the a film book meal room was is and but not very good bad fine dull great poor warm cold slow bright we liked hated
    it plot food staff view story
""".split()  # noqa: SIM905
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def encoder(folder: Path) -> Path:
    """Writes a random two-layer BERT of width 32 and its tokenizer to ``folder``."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens = SPECIAL + sorted({*WORDS, *letters, *(f"##{c}" for c in letters)})
    raw = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    BertTokenizerFast(tokenizer_object=raw, model_max_length=64).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return folder


def csv(path: Path, rows: int = 60, scores: bool = False) -> Path:
    """Writes ``rows`` different short reviews with a label (or a score) to ``path``."""
    nouns, verdicts = ("film", "book", "meal", "room", "plot"), ("good", "great", "fine", "bad", "dull", "poor")
    lines = ["words,verdict"]
    for i in range(rows):
        verdict = verdicts[i % 6]
        label = f"{(i % 6) / 2 + 0.25}" if scores else ("yes" if i % 6 < 3 else "no")
        lines.append(f"the {nouns[i % 5]} {'was ' * (1 + i // 30)}{verdict} and {WORDS[i % 30]},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def run(encoder: Path, data: Path, **fields) -> Run:
    """A run of four steps on a file made by :func:`csv`."""
    defaults = {"steps": 4, "evaluations": 2, "batch_size": 8, "device": "cpu", "learning_rate": 1e-3}
    return Run(None, str(encoder), data=str(data), text="words", label="verdict", **{**defaults, **fields})
