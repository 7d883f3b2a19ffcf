"""Inputs that an encoder accepts, made from its config."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROWS = 4
POSITIONS = 32  # tokens, or frames of audio after the convolutions


def dummy_inputs(encoder: nn.Module) -> dict[str, Tensor]:
    """A small batch without padding, on the encoder's device and in its dtype.

    Text: ``input_ids`` (4, up to 32), as many positions as the encoder has. Audio: ``input_values`` (4, samples),
    Gaussian noise just long enough for 32 frames. Draws from torch's CPU generator.
    Raises ``ValueError`` for an encoder that takes neither.
    """
    config, kind = encoder.config, encoder.main_input_name
    device = next(encoder.parameters()).device
    if kind == "input_ids":
        vocabulary = encoder.get_input_embeddings().num_embeddings
        padding = getattr(config, "pad_token_id", None)
        # RoBERTa and its kin count positions from padding + 1.
        longest = getattr(config, "max_position_embeddings", POSITIONS + 2) - (padding or 0) - 1
        ids = torch.randint(vocabulary, (ROWS, max(1, min(POSITIONS, longest))))
        if padding is not None:
            ids[ids == padding] = (padding + 1) % vocabulary
        return {"input_ids": ids.to(device)}
    if kind == "input_values" and hasattr(config, "conv_kernel"):
        samples = POSITIONS
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            samples = (samples - 1) * stride + kernel
        dtype = next(p.dtype for p in encoder.parameters() if p.is_floating_point())
        return {"input_values": torch.randn(ROWS, samples).to(device=device, dtype=dtype)}
    raise ValueError(
        f"cannot make inputs for {type(encoder).__name__}, which takes {kind}; text encoders (input_ids) and "
        "wav2vec-like audio encoders (input_values) can be measured"
    )
