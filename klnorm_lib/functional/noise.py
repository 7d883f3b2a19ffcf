"""Gaussian noise, and multiplicative noise with the moments of dropout."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary


def gaussian_dropout(x: Tensor, p: float) -> Tensor:
    r""":math:`x\,(1 + \sqrt{p/(1-p)}\,\epsilon)`, :math:`\epsilon \sim N(0, 1)` anew for every element.

    Any shape, 0 <= p < 1. Draws from torch's global generator. Mean x, variance :math:`x^2\,p/(1-p)`.
    """
    if has_torch_function_unary(x):  # so that probes can see the operation
        return handle_torch_function(gaussian_dropout, (x,), x, p)
    return torch.addcmul(x, x, normal_like(x), value=math.sqrt(p / (1 - p))) if p else x


def normal_like(x: Tensor) -> Tensor:
    r""":math:`\epsilon \sim N(0, 1)` anew for every element of ``x``, in its shape, dtype and device.

    Drawn in single precision at least, and rounded: one seed of torch's global generator gives the same noise with
    autocast and without it.
    """
    return torch.randn_like(x, dtype=torch.promote_types(x.dtype, torch.float32)).to(x.dtype)
