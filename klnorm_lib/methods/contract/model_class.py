"""The class of a changed model: a subclass of the user's, of the same name, that penalises, saves and pickles."""

from __future__ import annotations

import copy
import functools
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from klnorm_lib.doors import CONFIG_KEY, marked
from klnorm_lib.methods import model_card
from klnorm_lib.methods.contract import steps
from klnorm_lib.methods.contract.forward import penalised_forward
from klnorm_lib.methods.contract.fresh_parts import active_adapter, note_saved
from klnorm_lib.methods.contract.guards import note_forward
from klnorm_lib.methods.contract.undo import Undo, replace_module
from klnorm_lib.sites import unwrap

FORMAT = 1


def swap_class(module: nn.Module, subclass_of: Callable[[type], type]) -> None:
    """Give ``module`` the class that ``subclass_of`` makes of its own."""
    module.__class__ = subclass_of(type(module))


def rebuild(base: type, subclass_of: Callable[[type], type]) -> nn.Module:
    """An empty module of class ``subclass_of(base)``: what a copy or a pickle of one begins with."""
    cls = subclass_of(base)
    empty = cls.__new__(cls)
    if subclass_of is regularised:
        steps.watch(empty)
    return empty


def _named_like(base: type, cls: type) -> type:
    # The Trainer, peft and save_pretrained go by the class's name; it must stay the user's.
    cls.__name__, cls.__qualname__, cls.__module__, cls.__doc__ = (
        base.__name__,
        base.__qualname__,
        base.__module__,
        base.__doc__,
    )
    return cls


@functools.cache
def regularised(base: type) -> type:
    """The class of a model whose forward adds the penalty and whose ``save_pretrained`` writes the methods down."""
    if hasattr(base, "_klnorm_methods"):
        return base  # of a fresh model, made by calling the class of a changed one
    signature = inspect.signature(base.forward)

    class Regularised(base):
        accepts_loss_kwargs = False
        _klnorm_methods = None
        _klnorm_base = ""

        @functools.wraps(base.forward)
        def forward(self, *args, **kwargs):
            if self._klnorm_methods is None:
                return base.forward(self, *args, **kwargs)
            return penalised_forward(self, base.forward, signature.bind_partial(self, *args, **kwargs))

        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "forward" and self._klnorm_methods is not None:
                note_forward(self)

        @functools.wraps(base.save_pretrained)
        def save_pretrained(self, *args, **kwargs):
            if self._klnorm_methods is None:
                return base.save_pretrained(self, *args, **kwargs)
            of_saving = inspect.signature(base.save_pretrained)
            given = of_saving.bind(self, *args, **kwargs)
            if getattr(self, "_hf_peft_config_loaded", False):  # transformers then saves the adapter alone
                result = base.save_pretrained(self, *args, **kwargs)
                _save_config(self, given)
                return result
            if "save_original_format" in of_saving.parameters:
                # The names of the modules, by which a checkpoint is resumed too, not those of earlier transformers.
                kwargs.setdefault("save_original_format", False)
            with _methods_in_config(self), _marked(self.config):
                result = base.save_pretrained(self, *args, **kwargs)
            note_saved(self)
            if given.arguments.get("is_main_process", True):
                model_card.write(given.arguments["save_directory"], self)
            return result

        def _upload_modified_files(self, working_dir, *args, **kwargs):
            # transformers has put a card of its own over the one that save_pretrained wrote.
            model_card.write(working_dir, self)
            return base._upload_modified_files(self, working_dir, *args, **kwargs)

        def __reduce_ex__(self, protocol):
            # The auxiliary loss carries a graph, which neither copy nor pickle can take along.
            return rebuild, (base, regularised), self.__dict__ | {"_klnorm_auxiliary": None}

    return _named_like(base, Regularised)


@functools.cache
def saving_methods(base: type) -> type:
    """The class of a peft model that writes the methods of the model inside down beside its adapter."""

    class SavingMethods(base):
        @functools.wraps(base.save_pretrained)
        def save_pretrained(self, *args, **kwargs):
            result = base.save_pretrained(self, *args, **kwargs)
            given = inspect.signature(base.save_pretrained).bind(self, *args, **kwargs)
            # peft gives each adapter but the one named default a folder of its own.
            for name in given.arguments.get("selected_adapters") or list(self.peft_config):
                _save_config(unwrap(self), given, "" if name == "default" else name)
            return result

        def __reduce_ex__(self, protocol):
            return rebuild, (base, saving_methods), self.__dict__

    return _named_like(base, SavingMethods)


def _save_config(model: nn.Module, given: inspect.BoundArguments, folder: str = "") -> None:
    """Write the methods of ``model`` beside an adapter that a call of ``save_pretrained`` wrote."""
    if not given.arguments.get("is_main_process", True):
        return
    folder = Path(given.arguments["save_directory"], folder)
    with _methods_in_config(model):
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
    model_card.write(folder, model)


@contextmanager
def _methods_in_config(model: nn.Module) -> Iterator[None]:
    # Only while saving: a config object may be shared with models that no method was applied to.
    methods = [copy.deepcopy(m.to_dict()) for m in model._klnorm_methods]
    setattr(model.config, CONFIG_KEY, {"format": FORMAT, "methods": methods, "base": model._klnorm_base})
    try:
        yield
    finally:
        delattr(model.config, CONFIG_KEY)


@contextmanager
def _marked(config) -> Iterator[None]:
    # In the file only: the Trainer, pipelines and peft look at the model type of the config in memory.
    own = type(config)
    config.__class__ = _writing_marked(own)
    try:
        yield
    finally:
        config.__class__ = own


@functools.cache
def _writing_marked(own: type) -> type:
    def to_json_string(self, *args, **kwargs):
        return (
            json.dumps(marked(json.loads(own.to_json_string(self, *args, **kwargs))), indent=2, sort_keys=True) + "\n"
        )

    return type(own.__name__, (own,), {"to_json_string": to_json_string, "__module__": own.__module__})


def keep_in_adapter(peft_model: nn.Module, inner: nn.Module, undo: Undo) -> None:
    """Make peft train and save the layers that methods added outside ``modules_to_save``."""
    from peft.utils import ModulesToSaveWrapper

    adapter, config = active_adapter(peft_model)
    kept = [n for n, m in inner.named_modules() if isinstance(m, ModulesToSaveWrapper)]
    added = [n for n, m in inner.named_modules() if getattr(m, "added_by_klnorm", False) and m.state_dict()]
    for path in added:
        if any(path == k or path.startswith(f"{k}.") for k in kept):
            continue
        wrapper = ModulesToSaveWrapper(inner.get_submodule(path), adapter)
        wrapper.set_adapter(adapter)
        replace_module(inner, path, wrapper)
        undo.set(config, "modules_to_save", sorted({*(config.modules_to_save or ()), path}))
        kept.append(path)


def save_methods_with(peft_model: nn.Module) -> None:
    """Have ``peft_model.save_pretrained`` write the methods of the model inside down beside the adapter."""
    swap_class(peft_model, saving_methods)
