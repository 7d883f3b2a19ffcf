"""Small random models, a tokenizer and rows of text for the trainers of other libraries."""

import string

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

WORDS = [a + b for a in "abcde" for b in string.ascii_lowercase][:120]
PAD, BOS, EOS, UNKNOWN = range(4)


def bert(cls=BertForSequenceClassification, labels=2):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return cls(BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, num_labels=labels, **sizes))


def gpt2(cls=GPT2LMHeadModel):
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    tokens = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    return cls(GPT2Config(vocab_size=len(WORDS), num_labels=1, **sizes, **tokens))


def tokenizer():
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[UNKNOWN]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=WORDS[PAD], bos_token=WORDS[BOS], eos_token=WORDS[EOS],
        unk_token=WORDS[UNKNOWN], model_max_length=32,
    )  # fmt: skip


def text(row):
    return " ".join(WORDS[4 + (row * 7 + place * 3) % 100] for place in range(10))


def settings(folder, **others):
    return {
        "output_dir": str(folder), "max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 4,
        "use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, **others,
    }  # fmt: skip
