"""Which positions of a layer are real, at the rate of that layer."""

from __future__ import annotations

import torch
from torch import Tensor


def real_positions(config, mask: Tensor | None, length: int) -> Tensor | None:
    r"""Which of the ``length`` positions of a layer are real, (batch, length) bool; None without a mask.

    ``mask``: the model's attention mask, (batch, tokens) or (batch, samples). Text keeps its length. A convolution
    of kernel k and stride s shortens audio of n samples to :math:`\lfloor (n - k)/s \rfloor + 1` frames, as in
    the models' ``_get_feat_extract_output_lengths``: a frame is real if all that it has read is. The convolution
    that has just run is the one after which the padded batch has ``length`` frames. SEW then joins
    ``squeeze_factor`` frames, of which one real one is enough, as in its own attention mask. Positions beyond the
    mask's are padding that the model itself added, as Longformer does to fill its window. CANINE pools characters, of
    which one real one is enough; Perceiver's latents are all real. For other encoders that shorten their input the
    share of real positions is carried over. An example keeps one position at least.
    """
    if mask is None or mask.ndim != 2:
        return None
    if mask.shape[1] == length:
        return mask.bool()
    if length > mask.shape[1]:
        return torch.nn.functional.pad(mask.bool(), (0, length - mask.shape[1]))
    if length == getattr(config, "num_latents", None):  # Perceiver's, each of which reads all tokens
        return mask.new_ones(mask.shape[0], length).bool()
    rate = getattr(config, "downsampling_rate", None)  # CANINE's, whose pools are real if one character is
    if rate and length == mask.shape[1] // rate:
        return torch.nn.functional.max_pool1d(mask.float(), rate).bool()
    if hasattr(config, "separate_cls") and (pooled := _pooled_mask(mask, config, length)) is not None:
        return pooled
    real, total = mask.sum(1), mask.shape[1]
    share = torch.ceil(real * (length / total))
    for kernel, stride in zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=True):
        real, total = torch.div(real - kernel, stride, rounding_mode="floor") + 1, (total - kernel) // stride + 1
        if total == length:
            break
    else:
        squeeze = getattr(config, "squeeze_factor", 1)
        real = torch.ceil(real / squeeze) if total // squeeze == length else share
    return torch.arange(length, device=mask.device) < real.clamp_min(1)[:, None]


def _pooled_mask(mask: Tensor, config, length: int) -> Tensor | None:
    """The mask of an encoder that pools pairs of positions beside a separate first one (Funnel), or None.

    As its own code pools it: a pair is real if both are.
    """
    real = mask.float()
    while real.shape[1] > length:
        if config.separate_cls:
            real = torch.cat([real[:, :1], real[:, :-1] if config.truncate_seq else real], 1)
        real = -torch.nn.functional.max_pool1d(-real[:, None], 2, ceil_mode=True)[:, 0]
    return real.bool() if real.shape[1] == length else None
