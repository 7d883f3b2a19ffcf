"""Small random-weight classifiers of every model type that the installed transformers knows.

from tests.matrix import architectures

for name in architectures.names():           # "text/bert", "audio/wav2vec2", "image/vit", ...
    model = architectures.build(name)
    logits = model(**architectures.batch(name, model, rows=3, pads=16)).logits
"""

from __future__ import annotations

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

LABELS = 3
WIDTH = 32
LAYERS = 2
HEADS = 4
VOCABULARY = 120
IMAGE = 32
SAMPLES = 2_000
TOKENS = 16
FRAMES = 64
MAX_PARAMETERS = 5_000_000  # a model above this has a size that the rule does not reach

_MAPPINGS = {
    "text": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "audio": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
    "image": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
}
_AUTO = {
    "text": "AutoModelForSequenceClassification",
    "audio": "AutoModelForAudioClassification",
    "image": "AutoModelForImageClassification",
}

# A field of a configuration is set where its class has it.
_SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "dim", "n_embd", "emb_dim", "embedding_size"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer", "num_layers"), LAYERS),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads",), 2),
    **dict.fromkeys(("head_dim", "d_kv", "d_head"), WIDTH // HEADS),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "d_ff", "d_inner"), 2 * WIDTH),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim"), 2 * WIDTH),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), WIDTH),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "image_size": IMAGE,
    "patch_size": 8,
}
_SPEECH = {
    "conv_dim": (WIDTH, WIDTH),
    "conv_kernel": (10, 8),
    "conv_stride": (5, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": WIDTH,
}
_OVERRIDES: dict[str, dict[str, object]] = {
    "audio/audio-spectrogram-transformer": {"max_length": FRAMES, "num_mel_bins": 32},
    "audio/whisper": {"num_mel_bins": 32, "max_source_positions": FRAMES // 2},
    "audio/wav2vec2-bert": {"feature_projection_input_dim": WIDTH, "output_hidden_size": WIDTH},
    "text/mobilebert": {"true_hidden_size": WIDTH, "intra_bottleneck_size": WIDTH},
    "text/xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}


def names() -> list[str]:
    """The kind and model type of every sequence, audio and image classifier."""
    return [
        f"{kind}/{model_type}"
        for kind, mapping in _MAPPINGS.items()
        for model_type in sorted(getattr(modeling_auto, mapping))
    ]


def config(name: str) -> PreTrainedConfig:
    """The configuration of a small model of this name."""
    kind, model_type = name.split("/")
    known = AutoConfig.for_model(model_type)
    wanted = {**_SIZES, **(_SPEECH if hasattr(known, "conv_stride") else {})}
    fields = {key: value for key, value in wanted.items() if hasattr(known, key)}
    fields |= {key: 1 for key in ("pad_token_id",) if kind == "text"}
    fields |= _OVERRIDES.get(name, {})
    return type(known)(**fields, num_labels=LABELS)


def build(name: str, *, seed: int = 0) -> PreTrainedModel:
    """A small model with weights drawn under seed; ValueError where the rule leaves it large."""
    auto = getattr(modeling_auto, _AUTO[name.split("/")[0]])
    small = config(name)
    with torch.device("meta"):
        size = sum(p.numel() for p in auto.from_config(small).parameters())
    if size > MAX_PARAMETERS:
        raise ValueError(f"{name}: {size:,} parameters; name its sizes in _OVERRIDES")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return auto.from_config(small).eval()


def batch(name: str, model: PreTrainedModel, *, rows: int = 3, pads: int = 0) -> dict[str, torch.Tensor]:
    """Rows of random input with labels; pads more padding positions for text."""
    kind = name.split("/")[0]
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(rows) % LABELS
    if kind == "text":
        ids = torch.randint(5, VOCABULARY - 5, (rows, TOKENS), generator=draw)
        mask = torch.ones_like(ids)
        ids = torch.nn.functional.pad(ids, (0, pads), value=1)
        mask = torch.nn.functional.pad(mask, (0, pads))
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if kind == "image":
        pixels = torch.randn(rows, 3, IMAGE, IMAGE, generator=draw)
        return {"pixel_values": pixels, "labels": labels}
    if model.main_input_name == "input_features":
        shape = (rows, 32, FRAMES) if name == "audio/whisper" else (rows, FRAMES, WIDTH)
        return {"input_features": torch.randn(shape, generator=draw), "labels": labels}
    if name == "audio/audio-spectrogram-transformer":
        return {"input_values": torch.randn(rows, FRAMES, 32, generator=draw), "labels": labels}
    return {"input_values": torch.randn(rows, SAMPLES, generator=draw), "labels": labels}
