"""Small random-weight models of every supported architecture, and batches for them.

from tests import zoo

@pytest.mark.parametrize(("name", "attention"), zoo.CASES)
def test_something(name, attention):
    model = zoo.build(name, attention)
    loss = model(**zoo.batch(model)).loss
"""

from __future__ import annotations

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

LABELS = 3
WIDTH = 32
LAYERS = 2
SAMPLES = 2_000  # of audio; the convolution stack below makes 50 frames of them
TOKENS = 16

_BERT = {
    "vocab_size": 120,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
_DISTILBERT = {
    "vocab_size": 120,
    "dim": WIDTH,
    "n_layers": LAYERS,
    "n_heads": 4,
    "hidden_dim": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
_DEBERTA = {
    # Disentangled attention and the convolution of the published v2 checkpoints: both carry dropouts of their own.
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "conv_kernel_size": 3,
    "pooler_hidden_size": WIDTH,
}
_AUDIO = {
    "vocab_size": 32,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (8, 8, 16),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 4, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 16,
    # Random layer skipping and masking are switched on by the tests that are about them.
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
}
# As the large published checkpoints have it; the default, as the base ones, is one group normalisation.
_LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_CONFIGS = {
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": _DISTILBERT,
    "electra": _BERT | {"embedding_size": 16},
    "deberta-v2": _BERT | _DEBERTA,
    "mpnet": _BERT,
    "wav2vec2": _AUDIO,
    "hubert": _AUDIO,
    "wavlm": _AUDIO,
    "wav2vec2-layer": _AUDIO | _LAYER_NORM,
    "sew": _AUDIO,
    "data2vec-audio": _AUDIO,
    "unispeech": _AUDIO,
    "unispeech-sat": _AUDIO | _LAYER_NORM,
    "sew-d": _AUDIO,
    "wav2vec2-conformer": _AUDIO | _LAYER_NORM,
}
TEXT = ("bert", "roberta", "distilbert", "electra", "deberta-v2", "mpnet")
AUDIO = ("wav2vec2", "wav2vec2-layer", "hubert", "wavlm", "sew", "data2vec-audio")
GROUP_NORM = ("wav2vec2", "hubert", "wavlm", "sew")  # in the first convolution of their feature extractor
NAMES = TEXT + AUDIO
KIN = ("unispeech", "unispeech-sat", "sew-d", "wav2vec2-conformer")  # audio, outside the rounds over all names


def build(name: str, attention: str | None = None, kind: str = "classification", seed: int = 0, **config):
    """A model in eval mode, same weights for the same arguments, whatever the attention implementation.

    ``kind``: "classification", "masked-lm" (text only) or "encoder" (bare). ``config`` overrides the small defaults.
    """
    loaders = {
        "classification": AutoModelForSequenceClassification if name in TEXT else AutoModelForAudioClassification,
        "masked-lm": AutoModelForMaskedLM,
        "encoder": AutoModel,
    }
    settings = AutoConfig.for_model(_model_type(name), **{**_CONFIGS[name], "num_labels": LABELS, **config})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return loaders[kind].from_config(settings, attn_implementation=attention or attentions(name)[-1]).eval()


def _model_type(name: str) -> str:
    return name.removesuffix("-layer")


def attentions(name: str) -> tuple[str, ...]:
    """Attention implementations that the class of this architecture declares, "eager" first."""
    config = AutoConfig.for_model(_model_type(name))
    model_class = AutoModel._model_mapping[type(config)]
    return ("eager", "sdpa") if model_class._supports_sdpa else ("eager",)


def batch(model, rows: int = 4, labels: bool = True, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random inputs with a ragged attention mask: row i is shorter than row 0, no two rows alike."""
    config = (model.get_base_model() if hasattr(model, "get_base_model") else model).config
    generator = torch.Generator().manual_seed(seed)
    audio = hasattr(config, "conv_stride")
    length = SAMPLES if audio else TOKENS
    lengths = [length - (i * length) // (2 * rows) for i in range(rows)]
    mask = (torch.arange(length)[None, :] < torch.tensor(lengths)[:, None]).long()
    if audio:
        inputs = {"input_values": torch.randn(rows, length, generator=generator) * mask}
    else:
        ids = torch.randint(5, config.vocab_size, (rows, length), generator=generator)
        inputs = {"input_ids": torch.where(mask.bool(), ids, config.pad_token_id)}
    inputs["attention_mask"] = mask
    if labels:
        inputs["labels"] = torch.randint(0, config.num_labels, (rows,), generator=generator)
    return inputs


CASES = [(name, attention) for name in NAMES for attention in attentions(name)]
