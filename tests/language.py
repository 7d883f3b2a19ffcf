"""Small language models with their heads, and running text in their vocabulary."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from tests.study import small

VOCABULARY = 90  # no smaller than that of tests.study.small


def _bert(vocabulary: int) -> BertForMaskedLM:
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    )


def _gpt2(vocabulary: int) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=2, n_positions=64))


def _bart(vocabulary: int) -> BartForConditionalGeneration:
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=vocabulary,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=64,
            pad_token_id=0,
            decoder_start_token_id=3,
            forced_eos_token_id=None,
        )
    )


KINDS = {"masked": _bert, "causal": _gpt2, "seq2seq": _bart}


def model(folder: Path, kind: str = "masked", seed: int = 0) -> Path:
    """Writes a random language model of width 32 with its head and tokenizer to ``folder``."""
    small.encoder(folder)  # for its tokenizer; the weights are overwritten
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        KINDS[kind](VOCABULARY).save_pretrained(folder)
    return folder


def corpus(folder: Path, documents: int = 420) -> Path:
    """Writes a folder of running text, WikiExtractor's blocks, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks = []
    for i in range(documents):
        words = [small.WORDS[(i * 7 + j * (1 + i % 5)) % len(small.WORDS)] for j in range(60 + i % 40)]
        blocks.append(f'<doc id="{i}">\n{" ".join(words)}\n</doc>\n')
    (folder / "wiki.txt").write_text("".join(blocks))
    return folder
