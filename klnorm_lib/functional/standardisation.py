"""What the normalisation layers have in common: subtract a mean, divide by a standard deviation."""

from __future__ import annotations

import torch
from torch import Tensor

STATISTICS = ("layer", "batch", "rms", "group")


def standardise(
    x: Tensor, statistics: str = "layer", eps: float = 1e-5, groups: int = 1, mask: Tensor | None = None
) -> Tensor:
    r"""Standardised activation, without affine part.

    .. math:: \hat x = (h - m)/\sqrt{v + \epsilon}

    ``layer``: m, v over the last axis. ``group``: over each of ``groups`` equal slices of the last axis.
    ``rms``: m = 0, v = mean square of the last axis. ``batch``: over all leading axes, feature by feature,
    restricted to positions where ``mask`` is true. All use the biased variance, as torch's layers do.

    Shapes: ``x`` (..., features), ``mask`` ``x.shape[:-1]``; returns the shape and dtype of ``x``.
    Raises ``ValueError`` for unknown statistics, groups that do not divide the features, or ``batch`` over
    fewer than two rows. Sources: Ba et al. 2016, Ioffe and Szegedy 2015, Zhang and Sennrich 2019, Wu and He 2018.
    """
    if statistics not in STATISTICS:
        raise ValueError(f"unknown statistics {statistics!r}; choose one of {', '.join(STATISTICS)}")
    wide = x.to(torch.promote_types(torch.float32, x.dtype))
    if statistics == "layer":
        out = _centre_and_scale(wide, eps)
    elif statistics == "rms":
        out = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    elif statistics == "group":
        if groups < 1 or x.shape[-1] % groups:
            raise ValueError(f"{groups} groups do not divide {x.shape[-1]} features; choose a divisor")
        out = _centre_and_scale(wide.unflatten(-1, (groups, -1)), eps).flatten(-2)
    else:
        mean, variance = batch_moments(wide, mask)
        out = (wide - mean) * torch.rsqrt(variance + eps)
    return out.to(x.dtype)


def _centre_and_scale(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)


def batch_moments(x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each feature over all leading axes, at positions where ``mask`` is true.

    Shapes: ``x`` (..., features), ``mask`` ``x.shape[:-1]``; returns two tensors (features,).
    Raises ``ValueError`` for fewer than two rows, over which a variance says nothing.
    """
    rows = x.reshape(-1, x.shape[-1]) if mask is None else x[mask.bool()]
    if rows.shape[0] < 2:
        raise ValueError(
            f"batch statistics need at least 2 rows, got {rows.shape[0]}; enlarge the batch, drop the last "
            "incomplete one (dataloader_drop_last=True), or use layer statistics"
        )
    mean = rows.mean(0)
    return mean, (rows - mean).square().mean(0)
