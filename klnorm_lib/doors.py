"""Hugging Face's own ways to open a folder give the model with its methods, once ``klnorm_lib`` is imported.

``config.json`` of a whole model with methods has the model type ``klnorm`` (the model's own is in
``base_model_type``) and names a file of weights that does not exist: where ``klnorm_lib`` is not imported,
transformers raises an error, instead of a model with a random classifier. Every Trainer logs the penalties of the model
that it trains, and its model card says how that model is opened.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.abc
import json
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

CONFIG_KEY = "klnorm"
MODEL_TYPE = "klnorm"
BASE_TYPE = "base_model_type"
WEIGHTS_KEY = "transformers_weights"  # transformers looks for the file of this name only
NO_WEIGHTS = "import-klnorm_lib-before-you-open-this-model.safetensors"

_plain: ContextVar[bool] = ContextVar("plain", default=False)


def marked(settings: dict) -> dict:
    """The entries of ``config.json`` of a model with methods, from those of the model without."""
    return settings | {BASE_TYPE: settings["model_type"], "model_type": MODEL_TYPE, WEIGHTS_KEY: NO_WEIGHTS}


def unmarked(settings: dict) -> dict:
    """The reverse of :func:`marked`; what earlier versions saved comes back as it is."""
    settings = dict(settings)
    if BASE_TYPE in settings and settings.get("model_type") == MODEL_TYPE:
        settings["model_type"] = settings.pop(BASE_TYPE)
        settings.pop(WEIGHTS_KEY, None)
    return settings


@contextlib.contextmanager
def without_methods():
    """Inside, ``from_pretrained`` opens the model without its methods."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def _register_config(module) -> None:
    from transformers.configuration_utils import PreTrainedConfig

    class KLNormConfig(PreTrainedConfig):
        model_type = MODEL_TYPE

        @classmethod
        def from_dict(cls, config_dict, **kwargs):
            settings = unmarked(config_dict)
            if settings["model_type"] == MODEL_TYPE:
                raise ValueError(f"config.json has the model type {MODEL_TYPE} without {BASE_TYPE}; save it again")
            return module.CONFIG_MAPPING[settings["model_type"]].from_dict(settings, **kwargs)

    module.AutoConfig.register(MODEL_TYPE, KLNormConfig, exist_ok=True)


def _wrap_from_pretrained(module) -> None:
    original = module.PreTrainedModel.from_pretrained.__func__

    @functools.wraps(original)
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        folder = None if _plain.get() else _folder(pretrained_model_name_or_path, config, kwargs)
        if folder is None:
            return original(cls, pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        door = importlib.import_module("klnorm_lib.methods.loading.door")  # when first needed; it imports torch
        return door.open_as(cls, folder, *model_args, config=config, **kwargs)

    module.PreTrainedModel.from_pretrained = classmethod(from_pretrained)


def _folder(name, config, options: dict) -> Path | None:
    """The folder of a whole model with methods, or None for every other model."""
    if name is None:
        return None
    folder = Path(name).expanduser()
    if not folder.is_dir():
        known = {k: options[k] for k in ("revision", "cache_dir", "token", "local_files_only") if k in options}
        if not _has_methods(str(name), config, known | {"subfolder": options.get("subfolder", "")}):
            return None
        from huggingface_hub import is_offline_mode, snapshot_download

        # Without this huggingface_hub 1 asks the hub for the list of files although it is told to stay offline.
        known["local_files_only"] = known.get("local_files_only", False) or is_offline_mode()
        folder = Path(snapshot_download(str(name), **known))
    folder = folder / options.get("subfolder", "")
    is_whole = not (folder / "adapter_config.json").exists()
    return folder if is_whole and _in_file(folder / "config.json") else None


def _has_methods(repository: str, config, known: dict) -> bool:
    if hasattr(config, "to_dict"):
        return getattr(config, CONFIG_KEY, None) is not None
    from transformers.utils import cached_file

    try:
        file = cached_file(repository, "config.json", **known)
    except (OSError, ValueError):
        return False  # no such repository, or not now: transformers says so
    return file is not None and _in_file(Path(file))


def _in_file(config: Path) -> bool:
    try:
        return json.loads(config.read_text()).get(CONFIG_KEY) is not None
    except (OSError, ValueError):
        return False  # transformers says what is wrong with it


def _extend_trainer(module) -> None:
    callback = importlib.import_module("klnorm_lib.methods.callback")
    module.DEFAULT_CALLBACKS.append(callback.PenaltyLog)
    original = module.Trainer.create_model_card

    @functools.wraps(original)
    def create_model_card(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if self.is_world_process_zero():
            card = importlib.import_module("klnorm_lib.methods.model_card")
            card.write(self.args.output_dir, callback.changed_model(self.model))

    module.Trainer.create_model_card = create_model_card


HOOKS: dict[str, Callable] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.modeling_utils": _wrap_from_pretrained,
    "transformers.trainer": _extend_trainer,
}


def _execute(execute: Callable, module) -> None:
    execute(module)
    HOOKS[module.__name__](module)


class _AfterImport(importlib.abc.MetaPathFinder):
    # transformers takes seconds to import; what never opens a model should not wait for it.
    def find_spec(self, fullname, path=None, target=None):
        if fullname not in HOOKS:
            return None
        position = sys.meta_path.index(self)
        for finder in sys.meta_path[position + 1 :]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader.exec_module = functools.partial(_execute, spec.loader.exec_module)
                return spec
        return None


def register() -> None:
    """Have transformers know the model type ``klnorm``, now or as soon as it is imported."""
    for name, hook in HOOKS.items():
        if name in sys.modules:
            hook(sys.modules[name])
    sys.meta_path.insert(0, _AfterImport())
