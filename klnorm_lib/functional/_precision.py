"""Half precision in, float32 inside."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(*values: Tensor | float) -> list[Tensor]:
    """The values as tensors of one floating dtype, the widest that is given and at least float32, on one device."""
    tensors = [v if isinstance(v, Tensor) else torch.as_tensor(float(v)) for v in values]
    dtype = torch.float32
    for tensor, given in zip(tensors, values, strict=True):
        if not tensor.is_floating_point():
            raise TypeError(f"expected floating-point tensors, got {tensor.dtype}; convert with .float()")
        if isinstance(given, Tensor):
            dtype = torch.promote_types(dtype, tensor.dtype)
    device = next((v.device for v in values if isinstance(v, Tensor)), torch.device("cpu"))
    return [t.to(device=device, dtype=dtype) for t in tensors]
