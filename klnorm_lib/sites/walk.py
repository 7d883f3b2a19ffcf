"""Finding one's way in a model that may be wrapped: peft, DataParallel, torch.compile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """The transformers model inside peft, ``DataParallel`` and ``torch.compile`` wrappers, in any nesting.

    Raises ``TypeError`` if what is inside is not a transformers model.
    """
    from transformers import PreTrainedModel

    inner = model
    while not isinstance(inner, PreTrainedModel):
        if hasattr(inner, "get_base_model"):  # peft; prompt methods forward unknown attributes, so this comes first
            inner = inner.get_base_model()
        elif isinstance(inner, nn.Module) and isinstance(inner._modules.get("module"), nn.Module):
            inner = inner.module
        elif isinstance(inner, nn.Module) and isinstance(inner._modules.get("_orig_mod"), nn.Module):
            inner = inner._orig_mod
        else:
            raise TypeError(
                f"expected a Hugging Face transformers model, bare or wrapped in peft, got {type(inner).__name__}"
            )
    return inner


def opened(model: nn.Module) -> nn.Module:
    """``model`` without what ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile`` put around it.

    peft stays around: prompts are added in its forward. Unlike :func:`unwrap` it takes any module.
    """
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(model._modules.get("_orig_mod"), nn.Module):
            model = model._orig_mod
        else:
            return model


def bare_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of ``model``, each once, by the names that they have without any wrapper.

    Taken off is what peft, ``DataParallel`` and ``torch.compile`` put before them (``base_model.model.``, ``module.``,
    ``_orig_mod.``). What a wrapper adds itself, as peft does with prompts, keeps the name that it has there.
    """
    outer = opened(model)
    try:
        inside = {id(p): name for name, p in unwrap(outer).named_parameters()}
    except TypeError:  # a model of one's own
        inside = {}
    return {inside.get(id(p), name).replace("_orig_mod.", ""): p for name, p in outer.named_parameters()}


def encoder_of(model: nn.Module) -> nn.Module:
    """The encoder without its head, e.g. ``model.bert``; a bare encoder is its own.

    Of a model with a head whose class does not keep its encoder at ``base_model_prefix`` (Whisper's audio classifier,
    CLIP's image classifier) it is the largest part that is a transformers model itself.
    """
    from transformers import PreTrainedModel

    inner = unwrap(model)
    encoder = inner.base_model
    if encoder is not inner or not has_task(inner):
        return encoder
    parts = [child for child in inner.children() if isinstance(child, PreTrainedModel)]
    return max(parts, key=lambda part: sum(p.numel() for p in part.parameters()), default=inner)


def has_task(model: nn.Module) -> bool:
    """Whether ``model`` is made for a task, by the name of its class or of one it inherits from (``...For...``)."""
    return any(re.search(r"For[A-Z]", cls.__name__) for cls in type(model).__mro__)


@dataclass(frozen=True)
class Place:
    """A module, its real dotted ``path`` and its ``role``: the path that it would have without peft's wrappers."""

    path: str
    role: str
    module: nn.Module


def places(module: nn.Module, path: str = "", role: str = "") -> Iterator[Place]:
    """All modules that take part in the forward pass, outermost first, in registration order.

    Of a module that peft keeps twice only the active copy is visited; of a layer that peft adapts, the layer and
    the base layer below it, not the adapter. Layers that our own methods added are left out.
    """
    if getattr(module, "added_by_klnorm", False):
        return
    if "original_module" in module._modules:
        name, module = _active_copy(module)
        yield from places(module, join(path, name), role)
        return
    yield Place(path, role, module)
    if "base_layer" in module._modules:
        yield from places(module.base_layer, join(path, "base_layer"), role)
        return
    for name, child in module._modules.items():
        if child is not None:
            yield from places(child, join(path, name), join(role, name))


def join(path: str, name: str) -> str:
    """``path.name``, or ``name`` at the root."""
    return f"{path}.{name}" if path else name


def _active_copy(wrapper: nn.Module) -> tuple[str, nn.Module]:
    copies = wrapper._modules.get("modules_to_save")
    active = wrapper.active_adapters
    if copies is None or wrapper.disable_adapters or not active or active[0] not in copies:
        return "original_module", wrapper.original_module
    return f"modules_to_save.{active[0]}", copies[active[0]]
