"""Parts of a peft model's base whose weights were drawn at random: the adapter has to train and save them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from klnorm_lib.methods.contract.undo import Undo, replace_module

_LOADED = "_is_hf_initialized"  # set by from_pretrained on each parameter that the checkpoint contains
_HEADS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")


def keep_fresh_parts(peft_model: nn.Module, inner: nn.Module, undo: Undo) -> list[str]:
    """Put the parts that were drawn at random into ``modules_to_save`` of the active adapter; one line a part.

    Drawn at random are the parameters that ``from_pretrained`` did not find in the checkpoint. Where nothing was
    loaded, or quantised weights do not tell, they are those outside the encoder (``base_model``) of a model for
    classification. peft itself adds only modules whose names end in "classifier" or "score".
    Raises ``ValueError`` for parts that the adapter cannot contain: layers that the tuner itself adapts, and any
    part under a method of prompts, whose adapter has no ``modules_to_save``.
    """
    from peft.utils import ModulesToSaveWrapper

    adapter = peft_model.active_adapter
    config = peft_model.peft_config[adapter]
    fresh, known = _fresh(inner, config)
    lines = []
    for path in _parts(inner, fresh):
        if not hasattr(config, "modules_to_save"):
            raise ValueError(
                f"{path} was drawn at random, and an adapter of type {_type(config)} neither trains nor saves it; "
                "train it first and save the whole model as the base, or use a tuner with modules_to_save, such as LoRA"
            )
        if any(hasattr(m, "base_layer") for m in inner.get_submodule(path).modules()):
            if known:
                raise ValueError(
                    f"{path} was drawn at random, and {_type(config)} adapts it without saving its weights; give "
                    f"modules_to_save=[{path!r}] to the adapter's config"
                )
            continue
        wrapper = ModulesToSaveWrapper(inner.get_submodule(path), adapter)
        wrapper.set_adapter(adapter)
        replace_module(inner, path, wrapper)
        name = _name(peft_model, inner, path)
        undo.set(config, "modules_to_save", sorted({*(config.modules_to_save or ()), name}))
        lines.append(f"peft: {path} was drawn at random: it is trained and saved with the adapter (modules_to_save)")
    return lines


def _type(config) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def _fresh(inner: nn.Module, config) -> tuple[set[int], bool]:
    """The identities of parameters drawn at random, and whether loading told them."""
    own = list(_base_parameters(inner))
    if any(getattr(p, _LOADED, False) for p in own) and not getattr(inner, "is_quantized", False):
        return {id(p) for p in own if not getattr(p, _LOADED, False)}, True
    task = getattr(config.task_type, "value", config.task_type)
    if inner.base_model is inner or not (task in _HEADS or "Classification" in type(inner).__name__):
        return set(), False
    inside = {id(p) for p in inner.base_model.parameters()}
    return {id(p) for p in own if id(p) not in inside}, False


def _parts(module: nn.Module, fresh: set[int], path: str = "") -> Iterator[str]:
    """The outermost modules all of whose parameters are ``fresh``, unless peft keeps them already."""
    if "original_module" in module._modules:
        return
    own = {id(p) for p in _base_parameters(module)}
    if path and own and own <= fresh and not any("original_module" in m._modules for m in module.modules()):
        if any(not p.requires_grad for p in _base_parameters(module)):
            yield path
        return
    for name, child in module._modules.items():
        if child is not None and not isinstance(child, nn.ModuleDict | nn.ParameterDict):
            yield from _parts(child, fresh, f"{path}.{name}" if path else name)


def _base_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of ``module`` without those of a tuner inside, which stand beside its base layer."""
    if "base_layer" in module._modules:
        yield from _base_parameters(module.base_layer)
        return
    yield from (p for p in module._parameters.values() if p is not None)
    for child in module._modules.values():
        if child is not None:
            yield from _base_parameters(child)


def _name(peft_model: nn.Module, inner: nn.Module, path: str) -> str:
    """What peft finds the part by, which goes by the ending of a name: from the root on where ``path`` is ambiguous."""
    ambiguous = sum(name.endswith(path) for name, _ in inner.named_modules()) > 1
    root = next(name for name, m in peft_model.named_modules() if m is inner)
    return f"{root}.{path}" if ambiguous else path
