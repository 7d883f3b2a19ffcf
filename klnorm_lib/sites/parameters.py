"""The parameters of an encoder that were pretrained and train now, under the names that they have in the encoder."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from klnorm_lib.sites.walk import encoder_of, join, places


@dataclass(frozen=True)
class Named:
    """A trainable parameter of the encoder under the name that it has there, peft's wrappers left out."""

    name: str
    parameter: nn.Parameter


def pretrained_parameters(model: nn.Module, why: str) -> list[Named]:
    """The trainable parameters of the encoder, each once, its pooler left out.

    Left out are frozen ones, which are where they were, adapters and layers of other methods, which were not
    pretrained, and a pooler: many checkpoints have none, so that it is drawn at random, and a language model's loss
    does not depend on it. Raises ``ValueError`` when none is left, saying ``why`` that is of no use.
    """
    encoder = encoder_of(model)
    found: dict[int, Named] = {}
    for place in places(encoder):
        if place.role.split(".")[0] == "pooler":
            continue
        for name, parameter in place.module.named_parameters(recurse=False):
            if parameter.requires_grad:
                found.setdefault(id(parameter), Named(join(place.role, name), parameter))
    if not found:
        raise ValueError(f"no parameter of the encoder of {type(model).__name__} trains, as under LoRA; {why}")
    return list(found.values())
