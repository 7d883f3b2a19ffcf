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

from tests.matrix import sizes
from tests.matrix.sizes import EOS, FRAMES, HEADS, IMAGE, LABELS, PAD, VOCABULARY, WIDTH

SAMPLES = 2_000
TOKENS = 16
MAX_PARAMETERS = 5_000_000  # a model above this has a size that the rule does not reach

_MAPPINGS = {
    "text": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "audio": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
    "image": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
}
_CLASSIFIERS = ("text", "audio", "image")
_AUTO = {
    "text": "AutoModelForSequenceClassification",
    "audio": "AutoModelForAudioClassification",
    "image": "AutoModelForImageClassification",
    "masked": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
}


def names() -> list[str]:
    """The kind and model type of every sequence, audio and image classifier."""
    return [f"{kind}/{model_type}" for kind in _CLASSIFIERS for model_type in sorted(_types(kind))]


def language_models() -> list[str]:
    """``masked/`` or ``causal/`` and the model type of every language model of which there is no classifier."""
    known = _types("text")
    masked = _types("masked") - known
    causal = _types("causal") - known - masked
    return [*(f"masked/{kind}" for kind in sorted(masked)), *(f"causal/{kind}" for kind in sorted(causal))]


def _types(kind: str) -> set[str]:
    return set(getattr(modeling_auto, _MAPPINGS[kind]))


def config(name: str) -> PreTrainedConfig:
    """The configuration of a small model of this name."""
    kind, model_type = name.split("/")
    known = AutoConfig.for_model(model_type)
    fields = _fields(known, kind not in ("audio", "image"), sizes.OVERRIDES.get(name, {}))
    classes = getattr(modeling_auto, _MAPPINGS[kind])[model_type]
    named = {"architectures": [classes[0]]} if isinstance(classes, tuple) else {}
    return type(known)(**fields, **named, num_labels=LABELS)


def _fields(known: PreTrainedConfig, text: bool, overrides: dict) -> dict[str, object]:
    """The fields to set in a configuration of this class, those of configurations inside it too."""
    wanted = {**sizes.SIZES, **(sizes.SPEECH if hasattr(known, "conv_stride") else {})}
    if hasattr(known, "kv_lora_rank"):
        wanted |= {"num_key_value_heads": HEADS}
    fields = {key: value for key, value in wanted.items() if _settable(known, key, {**wanted, **overrides})}
    if text:
        fields["pad_token_id"] = PAD
    inside = {part: getattr(known, part) for part in known.sub_configs or {} if getattr(known, part) is not None}
    for part, inner in inside.items():
        fields[part] = type(inner)(**_fields(inner, text and part != "vision_config", overrides)).to_dict()
        fields[part].pop("model_type", None)
    return fields | {key: value for key, value in overrides.items() if not inside or hasattr(known, key)}


def _settable(known: PreTrainedConfig, key: str, wanted: dict) -> bool:
    # Sizes that follow from others are properties, and some raise when they are set; others are a second name.
    alias = known.attribute_map.get(key)
    return hasattr(known, key) and alias not in wanted and not isinstance(getattr(type(known), key, None), property)


def auto_class(name: str) -> type:
    """The Auto class that opens a saved model of this name."""
    return getattr(modeling_auto, _AUTO[name.split("/")[0]])


def build(name: str, *, seed: int = 0) -> PreTrainedModel:
    """A small model with weights drawn under seed, in evaluation mode.

    Raises ``ValueError`` where the rule leaves it large and for what is no classifier, ``ImportError`` for a package.
    """
    if name in sizes.NO_CLASSIFIERS:
        raise ValueError(f"{name}: {sizes.NO_CLASSIFIERS[name]}")
    auto = auto_class(name)
    small = config(name)
    with torch.device("meta"):
        size = sum(p.numel() for p in auto.from_config(small).parameters())
    if size > MAX_PARAMETERS:
        raise ValueError(f"{name}: {size:,} parameters; name its sizes in tests/matrix/sizes.py")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return auto.from_config(small).eval()


def takes_padding(name: str, model: PreTrainedModel) -> bool:
    """Whether rows of different length can be told apart by an attention mask."""
    fixed = name in ("audio/audio-spectrogram-transformer", "audio/whisper")
    return not name.startswith("image/") and not fixed


def batch(
    name: str, model: PreTrainedModel, *, rows: int = 3, pads: int = 0, ragged: bool = False
) -> dict[str, torch.Tensor]:
    """Rows of random input with labels; pads more padding positions for text, 40 samples each for sound.

    With ragged the second row is shorter than the others, where there is an attention mask to say so.
    """
    kind = name.split("/")[0]
    draw = torch.Generator().manual_seed(1)
    labels = {"labels": torch.arange(rows) % LABELS}
    if kind not in ("audio", "image"):
        ids = torch.randint(5, VOCABULARY - 5, (rows, TOKENS), generator=draw)
        real = [TOKENS - 6 if ragged and row == 1 else TOKENS for row in range(rows)]
        for row, length in enumerate(real):
            ids[row, length - 1 :] = PAD
            ids[row, length - 1] = EOS
        ids = torch.nn.functional.pad(ids, (0, pads), value=PAD)
        labels = labels if kind == "text" else {"labels": ids.masked_fill(ids == PAD, -100)}
        return {"input_ids": ids, "attention_mask": _mask(real, ids.shape[1]), **labels}
    if kind == "image":
        return _image(name, model, rows, draw) | labels
    if name == "audio/whisper":
        return {"input_features": torch.randn(rows, 32, FRAMES, generator=draw), **labels}
    if name == "audio/audio-spectrogram-transformer":
        return {"input_values": torch.randn(rows, FRAMES, 32, generator=draw), **labels}
    spectra = model.main_input_name == "input_features"
    length, step = (FRAMES, 1) if spectra else (SAMPLES, 40)
    real = [length * 3 // 5 if ragged and row == 1 else length for row in range(rows)]
    mask = _mask(real, length + pads * step)
    values = torch.randn(rows, length, *([WIDTH] if spectra else []), generator=draw)
    if spectra:
        values = torch.nn.functional.pad(values, (0, 0, 0, pads)) * mask[..., None]
    else:
        values = torch.nn.functional.pad(values, (0, pads * step)) * mask
    return {model.main_input_name: values, "attention_mask": mask, **labels}


def _mask(real: list[int], length: int) -> torch.Tensor:
    return (torch.arange(length) < torch.tensor(real)[:, None]).long()


def _image(name: str, model: PreTrainedModel, rows: int, draw: torch.Generator) -> dict[str, torch.Tensor]:
    if name == "image/imagegpt":  # its pixels are tokens, of colours
        return {"input_ids": torch.randint(0, 64, (rows, 64), generator=draw)}
    if name == "image/siglip2":  # cut into patches beforehand
        return {
            "pixel_values": torch.randn(rows, 16, 192, generator=draw),
            "pixel_attention_mask": torch.ones(rows, 16, dtype=torch.long),
            "spatial_shapes": torch.full((rows, 2), 4),
        }
    side = getattr(model.config, "image_size", IMAGE)
    side = side if isinstance(side, int) else IMAGE
    return {"pixel_values": torch.randn(rows, 3, side, side, generator=draw)}
