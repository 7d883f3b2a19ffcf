"""Where things are in a user's model: its head's last layer and its encoder's normalisations, found by role."""

from __future__ import annotations

from torch import nn

from klnorm_lib.sites.dropouts import Rate, Site, dropout_sites
from klnorm_lib.sites.walk import Place, encoder_of, has_task, places, unwrap

__all__ = ["Rate", "Site", "classifier_path", "dropout_sites", "encoder_of", "norm_paths", "unwrap"]


def classifier_path(model: nn.Module) -> str:
    """Dotted name, in ``unwrap(model)``, of the linear layer that makes the logits.

    It is the last one outside the encoder with as many outputs as the model has labels, or else the last one; where
    there is none outside (HGNetV2, Perceiver), the only one of the model with so many outputs. If peft adapts the
    layer, the name is that of the adapted layer; of a layer that peft keeps a trainable copy of, the name of the
    active copy. Raises ``ValueError`` for a model without a head, or with two beside each other.
    """
    inner = unwrap(model)
    encoder = encoder_of(inner)
    labels = getattr(inner.config, "num_labels", None)
    head = [] if encoder is inner else _linear(inner, leave_out=encoder)
    fitting = [p for p in head or _linear(inner) if _outputs(p.module) == labels]
    if not head and (len(fitting) != 1 or not has_task(inner)):
        raise ValueError(
            f"{type(inner).__name__} has no linear layer outside its encoder, so no classifier; "
            "load it with AutoModelForSequenceClassification or AutoModelForAudioClassification"
        )
    _refuse_several(inner, fitting)
    return (fitting or head)[-1].path


def _refuse_several(inner: nn.Module, found: list[Place]) -> None:
    """Raise for classifiers beside each other, of which the model averages the scores (SwiftFormer)."""
    last = found[-1] if found else None
    same = [p for p in found if p.role.rpartition(".")[0] == last.role.rpartition(".")[0]]
    same = [p for p in same if _base(p.module).in_features == _base(last.module).in_features != _outputs(last.module)]
    if len(same) > 1:
        raise ValueError(
            f"{type(inner).__name__} has {len(same)} classifiers, {', '.join(p.path for p in same)}: a layer before "
            "one of them would leave the others out; use placement='internal' where the method has it"
        )


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


def _linear(inner: nn.Module, leave_out: nn.Module | None = None) -> list[Place]:
    inside = set() if leave_out is None else {id(m) for m in leave_out.modules()}
    found: dict[str, Place] = {}
    for place in places(inner):
        if id(place.module) not in inside and place.role and _is_linear(place.module):
            found.setdefault(place.role, place)
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
