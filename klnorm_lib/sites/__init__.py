"""Where things are in a user's model: its head's last layer and its encoder's normalisations, found by role."""

from __future__ import annotations

from torch import nn

from klnorm_lib.sites.dropouts import Rate, Site, dropout_sites
from klnorm_lib.sites.walk import Place, encoder_of, places, unwrap

__all__ = ["Rate", "Site", "classifier_path", "dropout_sites", "encoder_of", "norm_paths", "unwrap"]


def classifier_path(model: nn.Module) -> str:
    """Dotted name, in ``unwrap(model)``, of the linear layer that makes the logits.

    It is the last one outside the encoder with as many outputs as the model has labels, or else the last one. If
    peft adapts the layer, the name is that of the adapted layer; of a layer that peft keeps a trainable copy of,
    the name of the active copy. Raises ``ValueError`` for a model without a head.
    """
    inner = unwrap(model)
    encoder = encoder_of(inner)
    head = [] if encoder is inner else [p for p in _outside(inner, encoder) if _is_linear(p.module)]
    if not head:
        raise ValueError(
            f"{type(inner).__name__} has no linear layer outside its encoder, so no classifier; "
            "load it with AutoModelForSequenceClassification or AutoModelForAudioClassification"
        )
    labels = getattr(inner.config, "num_labels", None)
    return ([p for p in head if _outputs(p.module) == labels] or head)[-1].path


def norm_paths(model: nn.Module) -> list[str]:
    """Dotted names, in ``unwrap(model)``, of the encoder's own normalisations, in registration order.

    Layer, RMS and group normalisations of torch, their subclasses, and classes named ``...LayerNorm`` or
    ``...RMSNorm``; layers that methods added are not among them. Raises ``ValueError`` if there are none.
    """
    inner = unwrap(model)
    encoder = encoder_of(inner)
    prefix = next(name for name, module in inner.named_modules() if module is encoder)
    found: dict[str, str] = {}
    for place in places(encoder, prefix):
        # An adapted layer and the base layer below it share their role: the outer one is the place to act on.
        if _is_norm(place.module) and not any(place.role == role for role in found):
            found[place.role] = place.path
    if not found:
        raise ValueError(
            f"no normalisation layer found in {type(encoder).__name__}; recognised are torch's LayerNorm, RMSNorm and "
            "GroupNorm, their subclasses, and classes named ...LayerNorm or ...RMSNorm"
        )
    return list(found.values())


def _outside(inner: nn.Module, encoder: nn.Module) -> list[Place]:
    inside = {id(m) for m in encoder.modules()}
    found: dict[str, Place] = {}
    for place in places(inner):
        if id(place.module) not in inside and place.role:
            found.setdefault(place.role, place) if _is_linear(place.module) else None
    return list(found.values())


def _base(module: nn.Module) -> nn.Module:
    while "base_layer" in module._modules:
        module = module.base_layer
    return module


def _is_linear(module: nn.Module) -> bool:
    return isinstance(_base(module), nn.Linear)


def _outputs(module: nn.Module) -> int:
    return _base(module).out_features


def _is_norm(module: nn.Module) -> bool:
    base = _base(module)
    named = type(base).__name__.endswith(("LayerNorm", "RMSNorm"))
    return isinstance(base, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)) or (named and not base._modules)
