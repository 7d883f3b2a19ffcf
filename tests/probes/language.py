"""Small language models of many architectures, weights drawn at random, and batches with padding for them."""

from __future__ import annotations

import torch
import transformers as hf

WORDS = 90
WIDTH = 16
_BERT = {
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}
_DEBERTA = {
    "relative_attention": True,
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
_DISTILBERT = {
    "vocab_size": WORDS,
    "dim": WIDTH,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 32,
    "max_position_embeddings": 24,
}
_BART = {
    "vocab_size": WORDS,
    "d_model": WIDTH,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 24,
    "scale_embedding": True,
}
_T5 = {
    "vocab_size": WORDS,
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
_GPT2 = {"vocab_size": WORDS, "n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 24}
_LLAMA = _BERT | {"num_key_value_heads": 1}

# name: class, its configuration, the loss, and whether something in it sees no batch axis
MODELS = {
    "bert": (hf.BertForMaskedLM, hf.BertConfig, _BERT, "masked", False),
    "roberta": (hf.RobertaForMaskedLM, hf.RobertaConfig, _BERT, "masked", False),
    "distilbert": (hf.DistilBertForMaskedLM, hf.DistilBertConfig, _DISTILBERT, "masked", False),
    "electra": (hf.ElectraForMaskedLM, hf.ElectraConfig, _BERT | {"embedding_size": 8}, "masked", False),
    "albert": (hf.AlbertForMaskedLM, hf.AlbertConfig, _BERT | {"embedding_size": 8}, "masked", False),
    "mpnet": (hf.MPNetForMaskedLM, hf.MPNetConfig, _BERT, "masked", True),
    "deberta-v2": (hf.DebertaV2ForMaskedLM, hf.DebertaV2Config, _BERT | _DEBERTA, "masked", True),
    "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config, _GPT2, "causal", False),
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, _LLAMA, "causal", False),
    "gemma": (hf.GemmaForCausalLM, hf.GemmaConfig, _LLAMA | {"head_dim": 8}, "causal", False),
    "t5": (hf.T5ForConditionalGeneration, hf.T5Config, _T5, "seq2seq", True),
    "bart": (hf.BartForConditionalGeneration, hf.BartConfig, _BART, "seq2seq", False),
    "bert-classifier": (
        hf.BertForSequenceClassification,
        hf.BertConfig,
        _BERT | {"num_labels": 3},
        "classification",
        False,
    ),
}


def build(name: str, **config) -> torch.nn.Module:
    """A model in training mode, with all weights random: biases and scales, too."""
    made, configuration, given, _, _ = MODELS[name]
    torch.manual_seed(0)
    model = made(configuration(**given | config))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.train()


def batch(kind: str, rows: int, tokens: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Sequences of unequal lengths, padded on the right, with unequal numbers of labelled tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, WORDS, (rows, tokens), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, tokens - 2 * (row % 3) :] = 0
    ids[mask == 0] = 1
    made = {"input_ids": ids, "attention_mask": mask}
    if kind == "classification":
        return made | {"labels": torch.randint(3, (rows,), generator=generator)}
    if kind == "seq2seq":
        labels = torch.randint(5, WORDS, (rows, 6), generator=generator)
        labels[1:, 4:] = -100
        return made | {"labels": labels}
    labels = ids.clone()
    if kind == "masked":
        hidden = torch.rand(rows, tokens, generator=generator) < 0.3
        hidden[:, 1] = True
        labels[~hidden] = -100
        made["input_ids"] = torch.where(hidden, torch.tensor(4), ids)
    labels[mask == 0] = -100
    return made | {"labels": labels}


def batches(name: str) -> list[dict[str, torch.Tensor]]:
    """Two batches of unequal sizes and lengths for a model of this module."""
    kind = MODELS[name][3]
    return [batch(kind, 5, 10, seed=1), batch(kind, 3, 8, seed=2)]


def apart(found: dict[str, torch.Tensor], true: dict[str, torch.Tensor]) -> dict[str, float]:
    """Parameter name -> the norm of the difference over the norm of the truth.

    The truth's norm has a floor: the square of a gradient that is zero but for rounding (a key's bias) is noise. A
    gradient of a millionth of the largest tensor's root mean square is such.
    """
    assert list(found) == list(true)
    noise = 1e-12 * max(float(t.mean()) for t in true.values())
    return {
        n: float((found[n].double() - t).norm() / max(float(t.double().norm()), noise * t.numel() ** 0.5 * 1e5))
        for n, t in true.items()
    }
