"""The scale and shift of our layers, under the names by which optimisers spare those of a normalisation from decay.

Which parameters weight decay reaches goes by name: the stock Trainer spares ``bias`` and ``layernorm``, scripts that
build their groups themselves ``bias`` and ``LayerNorm.weight``. So the part is called ``LayerNorm``, whatever comes
before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

NAME = "LayerNorm"
BASE = "base_LayerNorm"


class Affine(nn.Module):
    r""":math:`y = \gamma x + b`, or without shift; shapes (..., features), unchanged. It starts as the identity."""

    def __init__(self, features: int, shift: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.register_parameter("bias", nn.Parameter(torch.zeros(features)) if shift else None)

    def forward(self, x: Tensor) -> Tensor:
        y = self.weight * x
        return y if self.bias is None else y + self.bias


class HasAffine(nn.Module):
    """Base of layers with an :class:`Affine` part; it reads what was saved when scale and shift were their own.

    ``before``: the names that the layer's parameters had then -> those that they have now.
    """

    before: Mapping[str, str] = MappingProxyType(
        {
            "gamma": f"{NAME}.weight", "scale": f"{NAME}.weight", "bias": f"{NAME}.bias",
            "base_gamma": f"{BASE}.weight", "base_bias": f"{BASE}.bias",
        }
    )  # fmt: skip

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        for old, new in self.before.items():
            part, _, name = new.partition(".")
            if old not in self._parameters:
                continue
            value = self._parameters.pop(old)
            if part not in self._modules:
                self._modules[part] = Affine(len(value), shift=False).train(self.training)
            self._modules[part]._parameters[name] = value

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        rename(state_dict, self, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def rename(state: dict[str, Tensor], layer: HasAffine, prefix: str) -> None:
    """Give values of ``layer`` in ``state``, whose names begin with ``prefix``, the names that they have now."""
    now = {name for name, _ in layer.named_parameters()}
    for old, new in layer.before.items():
        if new in now and f"{prefix}{old}" in state:
            state[f"{prefix}{new}"] = state.pop(f"{prefix}{old}")


def renamed(state: Mapping[str, Tensor], model: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """``state``, whose names are those of ``model`` behind ``prefix``, with the names that they have now."""
    state = dict(state)
    for path, module in model.named_modules():
        if isinstance(module, HasAffine):
            rename(state, module, f"{prefix}{path}.")
    return state
