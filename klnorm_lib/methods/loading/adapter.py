"""A peft adapter whose methods were applied after ``get_peft_model``, from the folder that was saved."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from klnorm_lib.methods.affine import renamed
from klnorm_lib.methods.contract.method import apply_saved, penalise_adapter
from klnorm_lib.methods.contract.model_class import save_methods_with
from klnorm_lib.methods.loading.files import read_json
from klnorm_lib.methods.loading.plain import plain

_WEIGHTS = "adapter_model.safetensors"


def load_adapter(path: Path, methods: list) -> nn.Module:
    """A model opened from the folder of a peft adapter: its base, the methods' layers, then the adapter's weights.

    Raises ValueError where a part of the head is in neither file.
    """
    from peft import PeftConfig, PeftModel

    settings = read_json(path / "adapter_config.json")
    base, saved = settings["base_model_name_or_path"], settings.get("modules_to_save") or ()
    model, missing = plain(path, base)
    lost = sorted(key for key in missing if not _in_modules(key, saved))
    if lost:
        # Frozen by peft and drawn at random when the base was built: no file contains them.
        raise ValueError(
            f"{path}: {', '.join(lost)} are neither in the base model {base} nor in the adapter, so they are lost; "
            "train again with the modules that contain them in modules_to_save of the adapter's config"
        )
    report = apply_saved(model, *methods)
    prompts = PeftConfig.from_pretrained(path).is_prompt_learning  # peft opens these for evaluation only
    with _present_names(path, model) as folder:
        try:
            model = PeftModel.from_pretrained(model, folder, is_trainable=not prompts)
        except KeyError as error:
            raise ValueError(f"{path / _WEIGHTS} lacks {error}; save the adapter again") from error
        _check_complete(model, folder, path)
    save_methods_with(model)
    penalise_adapter(model, report)
    model.klnorm_report = report
    return model


@contextmanager
def _present_names(path: Path, model: nn.Module) -> Iterator[Path]:
    """The folder of the adapter, or one of the same with the names that parameters of our layers have now."""
    if not (path / _WEIGHTS).exists():
        yield path
        return
    state = load_file(path / _WEIGHTS)
    now = renamed(state, model, "base_model.model.")
    if now.keys() == state.keys():
        yield path
        return
    with TemporaryDirectory() as folder:
        shutil.copy(path / "adapter_config.json", folder)
        save_file(now, Path(folder, _WEIGHTS))
        yield Path(folder)


def _check_complete(model: nn.Module, folder: Path, path: Path) -> None:
    """Raise ``ValueError`` when the file of the adapter lacks weights of the modules that its config names."""
    from peft import get_peft_model_state_dict

    if not (folder / _WEIGHTS).exists():
        return  # of another format, or none, which peft has said
    used = {key for key in get_peft_model_state_dict(model) if ".original_module." not in key}
    with safe_open(folder / _WEIGHTS, "pt") as saved:
        absent = sorted(used - set(saved.keys()))
    if absent:
        raise ValueError(
            f"{path / _WEIGHTS} lacks {', '.join(absent[:5])}{' ...' if len(absent) > 5 else ''}, so the model would "
            "predict with random weights; save the adapter again"
        )


def _in_modules(key: str, modules) -> bool:
    """Whether a module that peft keeps contains the parameter ``key``; peft goes by the ending of a module's name."""
    parts = ["base_model", "model", *key.split(".")[:-1]]
    return any(".".join(parts[:i]).endswith(m) for i in range(3, len(parts) + 1) for m in modules)
