"""A whole model with methods, from the folder that its ``save_pretrained`` wrote."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from klnorm_lib.methods.affine import renamed
from klnorm_lib.methods.contract.fresh_parts import note_saved
from klnorm_lib.methods.contract.method import apply_saved
from klnorm_lib.methods.loading.files import read_safetensors
from klnorm_lib.methods.loading.plain import plain


def load_whole(path: Path, methods: list, **options) -> nn.Module:
    """A model opened from a folder of whole weights: the plain class, the methods' layers, then their weights.

    ``options`` go to ``from_pretrained``. Raises ValueError where a tensor is absent or has another shape.
    """
    state = read_safetensors(path)
    model, missing = plain(path, path, **options)
    model.klnorm_report = apply_saved(model, *methods)
    state = renamed(state, model)
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
    note_saved(model)
    return model


def _in_plain(key: str, model: nn.Module) -> bool:
    parts = key.split(".")
    return not any(
        getattr(model.get_submodule(".".join(parts[:i])), "added_by_klnorm", False) for i in range(1, len(parts))
    )
