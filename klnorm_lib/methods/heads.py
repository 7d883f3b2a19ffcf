"""Small maps from the standardised activation to the mean and standard deviation of a diagonal Gaussian."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GaussianHeads(nn.Module):
    r"""Offset and standard deviation as functions of :math:`\hat x`.

    .. math:: m = W_m \hat x + c_m, \qquad \sigma = \mathrm{softplus}(W_s \hat x + c_s)

    ``diagonal``: W is diagonal (4 features parameters in all); ``low_rank``: W = V U with U (rank, features) random
    and V (features, rank) zero, separate for m and sigma (4 rank features + 2 features); ``full``: W is dense
    (2 features^2 + 2 features). W starts at zero, so m = 0 and sigma = ``sigma`` at first.

    Shapes: (..., features) -> two tensors (..., features). The factors are bare parameters, not Linear layers, so
    that adapters which look for Linear layers leave them alone.
    """

    def __init__(self, features: int, kind: str, rank: int, sigma: float, generator: torch.Generator) -> None:
        super().__init__()
        self.kind = kind
        for head, start in (("mean", 0.0), ("std", math.log(math.expm1(sigma)))):
            self.register_parameter(f"{head}_bias", nn.Parameter(torch.full((features,), start)))
            if kind == "diagonal":
                self.register_parameter(f"{head}_weight", nn.Parameter(torch.zeros(features)))
            elif kind == "full":
                self.register_parameter(f"{head}_weight", nn.Parameter(torch.zeros(features, features)))
            else:
                inner = torch.randn(rank, features, generator=generator) / math.sqrt(features)
                self.register_parameter(f"{head}_inner", nn.Parameter(inner))
                self.register_parameter(f"{head}_outer", nn.Parameter(torch.zeros(features, rank)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._map("mean", x), F.softplus(self._map("std", x))

    def _map(self, head: str, x: Tensor) -> Tensor:
        bias = getattr(self, f"{head}_bias").to(x.dtype)
        if self.kind == "diagonal":
            return getattr(self, f"{head}_weight").to(x.dtype) * x + bias
        if self.kind == "full":
            return F.linear(x, getattr(self, f"{head}_weight").to(x.dtype), bias)
        inner = F.linear(x, getattr(self, f"{head}_inner").to(x.dtype))
        return F.linear(inner, getattr(self, f"{head}_outer").to(x.dtype), bias)
