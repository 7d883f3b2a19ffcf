"""Inputs that an encoder accepts, made from its config."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROWS = 4
POSITIONS = 32  # tokens, or frames of audio after the convolutions


def dummy_inputs(encoder: nn.Module) -> dict[str, Tensor]:
    """A small batch without padding, on the encoder's device and in its dtype.

    Text: ``input_ids`` (4, up to 32), as many positions as the encoder has. Audio: ``input_values`` (4, samples),
    Gaussian noise just long enough for 32 frames. Images and spectrograms: noise of the size in the config. A decoder
    gets ``decoder_input_ids`` beside them. Draws from torch's CPU generator.
    Raises ``ValueError`` for an encoder that takes neither.
    """
    config, kind = encoder.config, encoder.main_input_name
    device = next(encoder.parameters()).device
    if kind == "input_ids":
        vocabulary = _vocabulary(encoder)
        padding = getattr(config, "pad_token_id", None)
        # RoBERTa and its kin count positions from padding + 1.
        longest = getattr(config, "max_position_embeddings", POSITIONS + 2) - (padding or 0) - 1
        ids = torch.randint(vocabulary, (ROWS, max(1, min(max(POSITIONS, _sparse_from(encoder, longest)), longest))))
        if padding is not None:
            ids[ids == padding] = (padding + 1) % vocabulary
        ids = ids.to(device)
        return {"input_ids": ids, "decoder_input_ids": ids} if config.is_encoder_decoder else {"input_ids": ids}
    dtype = next(p.dtype for p in encoder.parameters() if p.is_floating_point())
    if kind == "pixel_values" and hasattr(config, "image_size") and hasattr(config, "num_channels"):
        size = config.image_size if isinstance(config.image_size, (list, tuple)) else [config.image_size] * 2
        return {"pixel_values": torch.randn(ROWS, config.num_channels, *size).to(device=device, dtype=dtype)}
    if kind == "input_values" and hasattr(config, "conv_kernel"):
        samples = POSITIONS
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            samples = (samples - 1) * stride + kernel
        return {"input_values": torch.randn(ROWS, samples).to(device=device, dtype=dtype)}
    shape = _spectrogram(config, kind)
    if shape is not None:
        inputs = {kind: torch.randn(ROWS, *shape).to(device=device, dtype=dtype)}
        if config.is_encoder_decoder:
            inputs["decoder_input_ids"] = torch.randint(config.vocab_size, (ROWS, POSITIONS // 4), device=device)
        return inputs
    raise ValueError(
        f"cannot make inputs for {type(encoder).__name__}, which takes {kind}; encoders of text (input_ids), "
        "images (pixel_values), waveforms (input_values) and spectrograms (input_features) can be measured"
    )


def _vocabulary(encoder: nn.Module) -> int:
    """How many tokens there are; of CANINE, which hashes characters and has no table, as many as bytes have values."""
    try:
        table = getattr(encoder.get_input_embeddings(), "weight", None)  # I-BERT's is no nn.Embedding
    except NotImplementedError:
        table = None
    return getattr(encoder.config, "vocab_size", 256) if table is None else table.shape[0]


def _sparse_from(encoder: nn.Module, longest: int) -> int:
    """How many tokens block-sparse attention needs (BigBird), else 0: for fewer the model changes itself for good.

    Raises ``ValueError`` when the encoder has fewer positions than that.
    """
    if not any(getattr(module, "attention_type", None) == "block_sparse" for module in encoder.modules()):
        return 0
    config = encoder.config
    enough = (6 + 2 * config.num_random_blocks) * config.block_size
    if enough > longest:
        raise ValueError(
            f"the block-sparse attention of {type(encoder).__name__} needs {enough} tokens, and it has {longest} "
            "positions, so that it would change to full attention, with other dropouts, in its first forward; load it "
            'with attention_type="original_full"'
        )
    return enough


def _spectrogram(config: object, kind: str) -> tuple[int, int] | None:
    """Shape of one row of AST, W2v-BERT or Whisper; None for an encoder that takes no spectrogram."""
    if kind == "input_values" and hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):
        return config.max_length, config.num_mel_bins
    if kind == "input_features" and hasattr(config, "feature_projection_input_dim"):
        return POSITIONS, config.feature_projection_input_dim
    if kind == "input_features" and hasattr(config, "max_source_positions"):
        return config.num_mel_bins, 2 * config.max_source_positions
    return None
