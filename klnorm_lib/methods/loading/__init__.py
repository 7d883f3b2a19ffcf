"""Load what ``save_pretrained`` of a changed model wrote, methods included."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from klnorm_lib.methods.contract.model_class import CONFIG_KEY, FORMAT
from klnorm_lib.methods.loading.adapter import load_adapter
from klnorm_lib.methods.loading.files import read_json
from klnorm_lib.methods.loading.whole import load_whole
from klnorm_lib.methods.registry import from_dict
from klnorm_lib.sites import unwrap


def load(path: str | Path, **options) -> nn.Module:
    """The model that ``model.save_pretrained(path)`` wrote, its methods applied, in evaluation mode.

    Works for whole models and for adapters whose methods were applied after ``get_peft_model`` or ``add_adapter``.
    The report of the new ``apply`` is at ``model.klnorm_report`` (its callbacks serve further training). ``options`` of
    a whole model (``dtype``, ``device_map``, ``attn_implementation``, ``config``) go to transformers'
    ``from_pretrained``.
    Raises ``FileNotFoundError`` when ``path`` contains no model, ``ValueError`` when it was saved without methods, by
    a newer format, with an unknown method, when its files are corrupt, truncated or incomplete, or when an adapter
    leaves out weights that its base was given at random or that its config names.
    """
    path = Path(path).expanduser()
    saved = read_json(path / "config.json").get(CONFIG_KEY)
    if saved is None:
        raise ValueError(
            f"{path} was saved without methods; load it with transformers' from_pretrained, or, for an adapter, build "
            "the base model, apply the methods and call PeftModel.from_pretrained"
        )
    if saved.get("format", 0) > FORMAT:
        raise ValueError(f"{path} uses format {saved['format']}, newer than {FORMAT}; upgrade klnorm-lib")
    methods = [from_dict(method) for method in saved["methods"]]
    is_adapter = (path / "adapter_config.json").exists()
    model = load_adapter(path, methods) if is_adapter else load_whole(path, methods, **options)
    unwrap(model)._klnorm_base = saved.get("base", "")
    return model.eval()
