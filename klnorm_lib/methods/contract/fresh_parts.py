"""Parts of a peft model's base whose weights were drawn at random: the adapter has to train and save them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from torch import nn

from klnorm_lib.methods.contract.undo import Undo, replace_module

_LOADED = "_is_hf_initialized"  # set by from_pretrained on each parameter that the checkpoint contains
_HEADS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
_LOST = (
    "{parts} of {model}: drawn at random, frozen by peft and not part of the active adapter ({adapter}), so that no "
    "file would contain what the adapter is trained with. Call get_peft_model (or add_adapter) first and apply after "
    "it, which puts them into the adapter, or give modules_to_save={names} to the adapter's config"
)
_OTHER = (
    "{path}: the methods were applied to the adapter {applied}, and {adapter} is active, which would train without "
    "them. Train {applied}, or make a new model, set the adapter that is to be trained and then apply"
)


def is_peft(module: nn.Module) -> bool:
    """Whether ``module`` is a model of peft, which need not be installed."""
    return any(cls.__name__ == "PeftModel" for cls in type(module).__mro__)


def adapter_hosts(outers: list[nn.Module], inner: nn.Module) -> list[nn.Module]:
    """The peft models among ``outers``, or ``inner`` itself where transformers' ``add_adapter`` put adapters inside."""
    found = [outer for outer in outers if is_peft(outer)]
    return found or ([inner] if getattr(inner, "_hf_peft_config_loaded", False) else [])


def active_adapter(host: nn.Module) -> tuple[str, object]:
    """Name and configuration of the adapter of ``host`` that trains."""
    name = host.active_adapter if is_peft(host) else host.active_adapters()[0]
    return name, host.peft_config[name]


def keep_fresh_parts(peft_model: nn.Module, inner: nn.Module, undo: Undo) -> list[str]:
    """Put the parts that were drawn at random into ``modules_to_save`` of the active adapter; one line a part.

    Drawn at random are the parameters that ``from_pretrained`` did not find in the checkpoint. Where nothing was
    loaded, or quantised weights do not tell, they are those outside the encoder (``base_model``) of a model for
    classification. peft itself adds only modules whose names end in "classifier" or "score".
    Raises ``ValueError`` for parts that the adapter cannot contain: layers that the tuner itself adapts, and any
    part under a method of prompts, whose adapter has no ``modules_to_save``.
    """
    from peft.utils import ModulesToSaveWrapper

    adapter, config = active_adapter(peft_model)
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


def check_fresh_parts(model: nn.Module) -> bool:
    """Look, once for each choice of adapters, for frozen parts that neither a checkpoint nor the adapter contains.

    Whether it looked. Adapters may come after ``apply``, and others may be made active. Raises ``RuntimeError`` for
    layers of methods and for parts of a model with a head of which loading told that they were drawn at random; warns
    where that is not certain.
    """
    active = tuple(name for m in model.modules() if (name := getattr(m, "_active_adapter", None)) is not None)
    if not active or str(active) == model.__dict__.get("_klnorm_adapters"):
        return False
    _check_applied(model, _names(active))
    fresh, known = _fresh(model, next(iter(getattr(model, "peft_config", {}).values()), None))
    added = {id(p) for m in model.modules() if _is_added(m) for p in _base_parameters(m)}
    unsaved = {id(p) for p in _base_parameters(model) if id(p) in added and not getattr(p, _LOADED, False)}
    embeddings = _input_embeddings(model)  # peft saves those that were resized
    parts = [p for p in _parts(model, fresh | unsaved, unused=True) if model.get_submodule(p) is not embeddings]
    if not parts:
        model._klnorm_adapters = str(active)
        return True
    named = ", ".join(parts[:4]) + (" ..." if len(parts) > 4 else "")
    text = _LOST.format(parts=named, model=type(model).__name__, adapter=_names(active), names=parts)
    certain = known and model.base_model is not model
    if certain or any(id(p) in unsaved for path in parts for p in model.get_submodule(path).parameters()):
        raise RuntimeError(text)
    model._klnorm_adapters = str(active)
    warnings.warn(text, stacklevel=2)
    return True


def _check_applied(model: nn.Module, adapter: str) -> None:
    """Raise ``RuntimeError`` where methods were applied to the copy of another adapter than the active one."""
    for path, module in model.named_modules():
        if "original_module" not in module._modules:
            continue
        copies = module._modules.get("modules_to_save") or {}
        applied = [name for name, copy in copies.items() if any(map(_is_added, copy.modules()))]
        if applied and not set(module.active_adapters) & set(applied):
            raise RuntimeError(_OTHER.format(path=path, applied=", ".join(applied), adapter=adapter))


def _is_added(module: nn.Module) -> bool:
    return getattr(type(module), "added_by_klnorm", False)  # of the type: peft's wrappers pass attributes on


def _input_embeddings(model: nn.Module) -> nn.Module | None:
    try:
        return model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def note_saved(model: nn.Module) -> None:
    """A file contains all parameters of ``model`` now."""
    for parameter in model.parameters():
        setattr(parameter, _LOADED, True)


def _names(active: tuple) -> str:
    flat = [name for each in active for name in ([each] if isinstance(each, str) else each)]
    return ", ".join(sorted(set(flat))) or "none"


def _type(config) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def _fresh(inner: nn.Module, config) -> tuple[set[int], bool]:
    """The identities of parameters drawn at random, and whether loading told them."""
    own = list(_base_parameters(inner))
    if any(getattr(p, _LOADED, False) for p in own) and not getattr(inner, "is_quantized", False):
        return {id(p) for p in own if not getattr(p, _LOADED, False)}, True
    task = getattr(config, "task_type", None)
    task = getattr(task, "value", task)
    if inner.base_model is inner or not (task in _HEADS or "Classification" in type(inner).__name__):
        return set(), False
    inside = {id(p) for p in inner.base_model.parameters()}
    return {id(p) for p in own if id(p) not in inside}, False


def _parts(module: nn.Module, fresh: set[int], path: str = "", unused: bool = False) -> Iterator[str]:
    """The outermost modules all of whose parameters are ``fresh``, unless peft keeps them already.

    ``unused``: those as well that peft keeps, but for another adapter than the active one.
    """
    if "original_module" in module._modules:
        if unused and not getattr(module, "active_adapters", ()):
            yield from _parts(module.original_module, fresh, f"{path}.original_module", unused)
        return
    own = {id(p) for p in _base_parameters(module)}
    if path and own and own <= fresh and not any("original_module" in m._modules for m in module.modules()):
        if any(not p.requires_grad for p in _base_parameters(module)):
            yield path
        return
    for name, child in module._modules.items():
        if child is not None and not isinstance(child, nn.ModuleDict | nn.ParameterDict):
            yield from _parts(child, fresh, f"{path}.{name}" if path else name, unused)


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
