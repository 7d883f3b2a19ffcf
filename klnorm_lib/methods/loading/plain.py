"""The model to which the saved methods are applied: its own class, without methods."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from klnorm_lib.doors import CONFIG_KEY, unmarked, without_methods
from klnorm_lib.encoders.no_code import code_refused, open_pretrained
from klnorm_lib.methods.loading.files import read_json


def base_config(config_path: Path):
    """The config of the model without methods."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    settings = unmarked(read_json(config_path / "config.json"))
    settings.pop(CONFIG_KEY)
    model_type = settings.get("model_type")
    if model_type in CONFIG_MAPPING:
        return CONFIG_MAPPING[model_type].from_dict(settings)
    if settings.get("auto_map"):
        raise code_refused(config_path, "transformers")
    raise ValueError(
        f"{config_path}/config.json has the model type {model_type!r}, which transformers "
        f"{transformers.__version__} does not have; install a version that does"
    )


def plain(
    config_path: Path, weights: str | Path, cls: type | None = None, config=None, **options
) -> tuple[nn.Module, set[str]]:
    """The model without methods, and the names that its weights did not contain."""
    import transformers

    config = base_config(config_path) if config is None else config
    name = (config.architectures or [None])[0]
    if cls is None and (name is None or not hasattr(transformers, name)):
        raise ValueError(f"{config_path}/config.json names the class {name!r}, which transformers does not have")
    cls = cls or getattr(transformers, name)
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()  # the methods' own weights look like surprises to the plain class
    transformers.logging.disable_progress_bar()
    try:
        with without_methods():
            model, info = open_pretrained(cls, weights, config=config, output_loading_info=True, **options)
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
    return model, set(info["missing_keys"])
