"""The model to which the saved methods are applied: its own class, without methods."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from klnorm_lib.encoders.no_code import open_pretrained
from klnorm_lib.methods.contract.model_class import CONFIG_KEY


def plain(config_path: Path, weights: str | Path) -> tuple[nn.Module, set[str]]:
    """The model without methods, and the names that its weights did not contain."""
    import transformers
    from transformers import AutoConfig

    config = open_pretrained(AutoConfig, config_path)
    delattr(config, CONFIG_KEY)
    name = (config.architectures or [None])[0]
    if name is None or not hasattr(transformers, name):
        raise ValueError(f"{config_path}/config.json names the class {name!r}, which transformers does not have")
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()  # the methods' own weights look like surprises to the plain class
    transformers.logging.disable_progress_bar()
    try:
        model, info = open_pretrained(getattr(transformers, name), weights, config=config, output_loading_info=True)
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
    return model, set(info["missing_keys"])
