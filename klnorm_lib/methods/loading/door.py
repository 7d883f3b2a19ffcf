"""What ``from_pretrained`` of a transformers class gives for the folder of a whole model with methods."""

from __future__ import annotations

import copy
from pathlib import Path

from torch import nn

from klnorm_lib.doors import CONFIG_KEY
from klnorm_lib.methods.loading.plain import base_config

# What transformers needs to find the folder, which is here already, or what changes nothing in the model.
_OF_THE_FOLDER = frozenset(
    {
        "cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "weights_only",
        "use_safetensors", "_commit_hash", "adapter_kwargs", "trust_remote_code", "code_revision",
        "ignore_mismatched_sizes", "_from_auto", "_from_pipeline",
    }
)  # fmt: skip
_PASSED_ON = frozenset({"dtype", "torch_dtype", "attn_implementation", "device_map", "disable_mmap"})


def open_as(cls: type, folder: Path, *model_args, config=None, output_loading_info: bool = False, **options):
    """The model in ``folder``, methods applied, in evaluation mode; ``cls`` must be the class that was saved.

    ``config`` may change anything but the shape of the classifier. Raises ``ValueError`` for another class, another
    number of labels, and for options under which the saved weights would not be those of the model.
    """
    from klnorm_lib.methods.loading import load

    options = {k: v for k, v in options.items() if k not in _OF_THE_FOLDER}
    saved = base_config(folder)
    name = (saved.architectures or [None])[0]
    if name != cls.__name__:
        raise ValueError(f"{folder} is a {name} with methods; open it with {name}, not with {cls.__name__}")
    if config is None or not hasattr(config, "to_dict"):
        config, options = _overridden(saved, options)
    config = copy.deepcopy(config)
    if hasattr(config, CONFIG_KEY):
        delattr(config, CONFIG_KEY)
    if config.num_labels != saved.num_labels:
        raise ValueError(
            f"{folder} was trained with {saved.num_labels} labels, not {config.num_labels}; another number would "
            "replace its classifier with a random one. Train a new model for other labels"
        )
    unknown = sorted(set(options) - _PASSED_ON)
    if unknown or model_args:
        raise ValueError(
            f"{folder} is a model with methods and cannot be opened with {', '.join(unknown) or 'positional arguments'}"
            f"; known are {', '.join(sorted(_PASSED_ON))} and settings of its config"
        )
    model: nn.Module = load(folder, cls=cls, config=config, **options)
    if output_loading_info:
        return model, {key: set() for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")}
    return model


def _overridden(saved, options: dict) -> tuple:
    of_config = {k: v for k, v in options.items() if k not in _PASSED_ON and (k == "num_labels" or hasattr(saved, k))}
    return type(saved).from_dict(saved.to_dict(), **of_config), {k: v for k, v in options.items() if k not in of_config}
