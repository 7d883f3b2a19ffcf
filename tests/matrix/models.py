"""Small models without randomness in training, what they compute, and how a check says that something is wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from klnorm_lib.methods.klnorm import KLNormLayer
from tests.matrix import architectures

PADS = 16
RELATIVE = 1e-4  # of penalties


class Fault(AssertionError):
    """What a check found to be wrong."""


def demand(holds: bool, what: str) -> None:
    """Raise ``Fault`` unless ``holds``."""
    if not holds:
        raise Fault(what)


def near(what: str, value: object, expected: object, relative: float = RELATIVE) -> None:
    """Raise ``Fault`` unless both numbers are equal to ``relative``."""
    value, expected = float(value), float(expected)
    demand(abs(value - expected) <= relative * abs(expected), f"{what} is {value:.6g} instead of {expected:.6g}")


def built(name: str) -> PreTrainedModel:
    """The model without dropout, layer-drop and SpecAugment, its norms' weights and biases moved from 1 and 0."""
    model = architectures.build(name)
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    for owner in (*model.modules(), *configs.values()):
        for key, value in vars(owner).items():
            if isinstance(value, float) and ("drop" in key or key in ("mask_time_prob", "mask_feature_prob")):
                setattr(owner, key, 0.0)
        if isinstance(owner, (nn.Dropout, nn.Dropout1d, nn.Dropout2d)):
            owner.p = 0.0
    draw = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=draw)
    return model


def moved(model: nn.Module) -> list[KLNormLayer]:
    """The model's KL-Norm layers, their distributions moved from where they start."""
    draw = torch.Generator().manual_seed(3)
    layers = [module for module in model.modules() if isinstance(module, KLNormLayer)]
    for layer in layers:
        for parameter in layer.heads.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=draw)
    return layers


@torch.no_grad()
def logits_of(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """(batch, labels), in evaluation mode and under one seed, for those that draw numbers even so."""
    torch.manual_seed(4)
    return model.eval()(**batch).logits


def depends(name: str, model: PreTrainedModel) -> float:
    """By how much the logits move beside 16 more pads."""
    if not architectures.takes_padding(name, model):
        return 0.0
    batches = [architectures.batch(name, model, pads=pads, ragged=True) for pads in (0, PADS)]
    return float((logits_of(model, batches[0]) - logits_of(model, batches[1])).abs().max())


@torch.no_grad()
def inside_depends(name: str, model: PreTrainedModel) -> float:
    """By how much the logits, or what stands at real positions inside, move beside 16 more pads."""
    moves = depends(name, model)
    if not architectures.takes_padding(name, model):
        return moves
    batches = [architectures.batch(name, model, pads=pads, ragged=True) for pads in (0, PADS)]
    inside = [model.eval()(**batch, output_hidden_states=True) for batch in batches]
    mask = batches[0]["attention_mask"].bool()
    for key in ("hidden_states", "encoder_hidden_states"):
        for one, other in zip(*((output.get(key) or ()) for output in inside), strict=True):
            if one.shape[:2] == mask.shape and one.shape[0] == other.shape[0]:
                moves = max(moves, float((one - other[:, : one.shape[1]])[mask].abs().max()))
    return moves
