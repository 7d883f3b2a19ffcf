"""Which dtypes the trained weights may have."""

from __future__ import annotations

import warnings

import torch
from torch import nn

_HALF = (
    "{count} of the weights to be trained are float16 ({first}, ...): the small steps of an optimiser round to zero in "
    "it, or end in NaN. Load the model with dtype=torch.float32; with peft on a frozen base, call "
    "peft.cast_mixed_precision_params(model, torch.float16), which leaves the trained weights in float32. fp16=True of "
    "the Trainer then still computes in float16"
)
_BRAIN = (
    "{count} of the weights to be trained are bfloat16 ({first}, ...), which keeps three significant digits: a step "
    "smaller than about 0.2 % of a weight rounds to no step at all, and at the usual learning rates most are. Load the "
    "model with dtype=torch.float32; bf16=True of the Trainer then still computes in bfloat16"
)


def check_trained_weights(model: nn.Module) -> None:
    """Raise ``ValueError`` for weights of ``model`` that train in float16, and warn of those that do in bfloat16."""
    refuse_float16(model)
    found = _trained(model, torch.bfloat16)
    if found:
        warnings.warn(_BRAIN.format(count=len(found), first=found[0]), stacklevel=4)


def refuse_float16(model: nn.Module) -> None:
    """Raise ``ValueError`` for weights of ``model`` that train in float16."""
    found = _trained(model, torch.float16)
    if found:
        raise ValueError(_HALF.format(count=len(found), first=found[0]))


def _trained(model: nn.Module, dtype: torch.dtype) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad and p.dtype == dtype]


def of_trained(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a new layer beside weights of ``dtype``: at least float32, since it is trained."""
    return torch.promote_types(torch.float32, dtype)
