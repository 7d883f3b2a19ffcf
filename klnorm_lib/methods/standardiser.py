"""Standardisation as a layer: stateless, or with the running moments that batch statistics need in evaluation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from klnorm_lib import functional


class Standardiser(nn.Module):
    r""":math:`\hat x = (h - m)/\sqrt{v + \epsilon}` without affine part; see ``functional.standardise``.

    Batch statistics keep running moments (momentum 0.1, unbiased variance, as torch's BatchNorm) for evaluation.
    Shapes: (..., features), unchanged. Raises ``ValueError`` in training for batch statistics of more than one vector
    an example, where padding would count.
    """

    def __init__(self, features: int, statistics: str, eps: float, groups: int = 1, momentum: float = 0.1) -> None:
        super().__init__()
        if statistics == "group" and features % groups:
            divisors = [g for g in range(1, features + 1) if features % g == 0]
            raise ValueError(f"{groups} groups do not divide {features} features; choose one of {divisors}")
        self.statistics, self.eps, self.groups, self.momentum = statistics, eps, groups, momentum
        if statistics == "batch":
            self.register_buffer("running_mean", torch.zeros(features))
            self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor, update: bool = True) -> Tensor:
        if self.statistics != "batch":
            return functional.standardise(x, self.statistics, self.eps, self.groups)
        if not self.training:
            return (x - self.running_mean) * torch.rsqrt(self.running_var + self.eps)
        if x.ndim > 2:
            raise ValueError(
                "batch statistics need one vector an example; this head reads every position "
                f"(shape {tuple(x.shape)}), padding among them, which would move the statistics. Use statistics "
                "layer, rms or group"
            )
        if update:
            self._update(x.detach())
        return functional.standardise(x, "batch", self.eps)

    @torch.no_grad()
    def _update(self, x: Tensor) -> None:
        mean, variance = functional.batch_moments(x)
        rows = x.numel() // x.shape[-1]
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_((variance * rows / (rows - 1)).to(self.running_var), self.momentum)


class ChannelStandardiser(nn.Module):
    """What ``nn.GroupNorm`` standardises by, without affine part and with the channels put last.

    With as many groups as channels, as in the first convolution of Wav2Vec2, that is each channel over time.
    Shapes: (batch, channels, positions) -> (batch, positions, channels).
    """

    def __init__(self, groups: int, eps: float) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps

    def forward(self, x: Tensor, update: bool = True) -> Tensor:
        return F.group_norm(x, self.groups, eps=self.eps).movedim(1, -1)
