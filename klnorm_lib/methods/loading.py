"""Load what ``save_pretrained`` of a changed model wrote, methods included."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from klnorm_lib.methods.contract.method import apply_saved
from klnorm_lib.methods.contract.model_class import CONFIG_KEY, FORMAT, save_methods_with
from klnorm_lib.methods.registry import from_dict


def load(path: str | Path) -> nn.Module:
    """The model that ``model.save_pretrained(path)`` wrote, its methods applied, in evaluation mode.

    Works for whole models and for peft adapters whose methods were applied after ``get_peft_model``. The report of
    the new ``apply`` is at ``model.klnorm_report`` (its callbacks serve further training).
    Raises ``FileNotFoundError`` when ``path`` contains no model, ``ValueError`` when it was saved without methods, by
    a newer format, with an unknown method, when its files are corrupt, truncated or incomplete, or when an adapter
    leaves out weights that its base was given at random.
    """
    path = Path(path).expanduser()
    saved = _read_json(path / "config.json").get(CONFIG_KEY)
    if saved is None:
        raise ValueError(
            f"{path} was saved without methods; load it with transformers' from_pretrained, or, for an adapter, build "
            "the base model, apply the methods and call PeftModel.from_pretrained"
        )
    if saved.get("format", 0) > FORMAT:
        raise ValueError(f"{path} uses format {saved['format']}, newer than {FORMAT}; upgrade klnorm-lib")
    methods = [from_dict(method) for method in saved["methods"]]
    is_adapter = (path / "adapter_config.json").exists()
    model = _load_adapter(path, methods) if is_adapter else _load_whole(path, methods)
    return model.eval()


def _load_whole(path: Path, methods: list) -> nn.Module:
    state = _read_safetensors(path)
    model, missing = _plain(path, path)
    model.klnorm_report = apply_saved(model, *methods)
    own = set(model.state_dict())
    # The plain class loads all its own keys, renamed ones included; the other keys belong to the methods.
    wanted = {key for key in own if key in missing or not _in_plain(key, model)}
    absent = sorted(wanted - set(state))
    if absent:
        raise ValueError(f"{path} lacks {', '.join(absent[:5])}{' ...' if len(absent) > 5 else ''}; save it again")
    mismatched = [k for k in wanted if state[k].shape != model.state_dict()[k].shape]
    if mismatched:
        raise ValueError(f"{path}: {mismatched[0]} has another shape than its config.json says; save it again")
    model.load_state_dict({key: state[key] for key in wanted}, strict=False)
    return model


def _in_plain(key: str, model: nn.Module) -> bool:
    parts = key.split(".")
    return not any(
        getattr(model.get_submodule(".".join(parts[:i])), "added_by_klnorm", False) for i in range(1, len(parts))
    )


def _load_adapter(path: Path, methods: list) -> nn.Module:
    from peft import PeftModel

    settings = _read_json(path / "adapter_config.json")
    base, saved = settings["base_model_name_or_path"], settings.get("modules_to_save") or ()
    model, missing = _plain(path, base)
    lost = sorted(key for key in missing if not _in_modules(key, saved))
    if lost:
        # Frozen by peft and drawn at random when the base was built: no file contains them.
        raise ValueError(
            f"{path}: {', '.join(lost)} are neither in the base model {base} nor in the adapter, so they are lost; "
            "train again with the modules that contain them in modules_to_save of the adapter's config"
        )
    report = apply_saved(model, *methods)
    model = PeftModel.from_pretrained(model, path, is_trainable=True)
    save_methods_with(model)
    model.klnorm_report = report
    return model


def _in_modules(key: str, modules) -> bool:
    """Whether a module of that name, as peft matches names, contains the parameter ``key``."""
    parts = key.split(".")[:-1]
    return any(f".{'.'.join(parts[:i])}".endswith(f".{m}") for i in range(1, len(parts) + 1) for m in modules)


def _plain(config_path: Path, weights: str | Path) -> tuple[nn.Module, set[str]]:
    """The model without methods, and the names that its weights did not contain."""
    import transformers
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(config_path)
    delattr(config, CONFIG_KEY)
    name = (config.architectures or [None])[0]
    if name is None or not hasattr(transformers, name):
        raise ValueError(f"{config_path}/config.json names the class {name!r}, which transformers does not have")
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()  # the methods' own weights look like surprises to the plain class
    transformers.logging.disable_progress_bar()
    try:
        model, info = getattr(transformers, name).from_pretrained(weights, config=config, output_loading_info=True)
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
    return model, set(info["missing_keys"])


def _read_json(file: Path) -> dict:
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist; give the folder that save_pretrained wrote")
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is corrupt or truncated ({error}); save the model again") from error


def _read_safetensors(path: Path) -> dict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no model*.safetensors in {path}; save with safe serialisation")
    state: dict = {}
    for file in files:
        try:
            state |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"checkpoint {file} is corrupt or truncated ({error}); save the model again") from error
    index = path / "model.safetensors.index.json"
    if index.exists():
        lost = {part for part in _read_json(index)["weight_map"].values() if not (path / part).exists()}
        if lost:
            raise ValueError(f"{path} lacks the shards {', '.join(sorted(lost))}; copy them again")
    return state
