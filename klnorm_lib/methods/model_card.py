"""The README.md beside a saved model: which methods it was trained with, and how it is opened."""

from __future__ import annotations

import json
import re
from pathlib import Path

from torch import nn

_BEGIN, _END = "<!-- klnorm -->", "<!-- /klnorm -->"
_SECTION = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def write(folder: str | Path, model: nn.Module | None) -> None:
    """Write ``folder/README.md`` if there is none; of one that is there, make or renew our section and keep the rest.

    Where no method was applied to the model, nothing is written.
    """
    if getattr(model, "_klnorm_methods", None) is None:
        return
    file = Path(folder) / "README.md"
    card = file.read_text(encoding="utf-8") if file.exists() else _head(model)
    is_adapter = file.with_name("adapter_config.json").exists()
    section = f"{_BEGIN}\n{_body(model, is_adapter)}{_END}"
    card = _SECTION.sub(lambda _: section, card) if _SECTION.search(card) else f"{card.rstrip()}\n\n{section}\n"
    file.write_text(card, encoding="utf-8")


def base_name(model: nn.Module) -> str:
    """Where the weights came from before methods were applied: a repository, or the name alone of a local folder."""
    given = str(getattr(model.config, "_name_or_path", "") or "")
    return given if _REPOSITORY.fullmatch(given) and not Path(given).exists() else Path(given).name


def _head(model: nn.Module) -> str:
    base = model._klnorm_base
    known = f"base_model: {base}\n" if _REPOSITORY.fullmatch(base) else ""
    return f"---\nlibrary_name: transformers\n{known}tags:\n- klnorm\n---\n\n# {type(model).__name__}\n"


def _body(model: nn.Module, is_adapter: bool) -> str:
    from klnorm_lib import __version__

    base = model._klnorm_base
    base = f"[{base}](https://huggingface.co/{base})" if _REPOSITORY.fullmatch(base) else base and f"`{base}`"
    base = base or "weights that were not loaded"
    methods = model._klnorm_methods
    names = ", ".join(f"`{method.name}`" for method in methods) or "no method"
    return f"""\
## Methods of klnorm-lib

A {type(model).__name__} trained from {base} with {names}, by klnorm-lib {__version__}.

```json
{json.dumps([method.to_dict() for method in methods], indent=2)}
```

Without klnorm-lib, transformers refuses to open it, since it would leave out what the methods added. With klnorm-lib:

```python
{_opening(model, is_adapter)}
```
"""


def _opening(model: nn.Module, is_adapter: bool) -> str:
    if is_adapter:
        return 'import klnorm_lib\n\nmodel = klnorm_lib.load("this folder")  # the adapter in its base model'
    name = _auto_class(model)
    return (
        "import klnorm_lib  # first: it teaches transformers this kind of model\n"
        f"from transformers import {name}\n\n"
        f'model = {name}.from_pretrained("this folder or repository")  # or transformers.pipeline(model=...)'
    )


def _auto_class(model: nn.Module) -> str:
    """The Auto class for the model's class, or that class itself where there is none."""
    from transformers.models.auto import modeling_auto

    name, kind = type(model).__name__, model.config.model_type
    for auto in vars(modeling_auto).values():
        mapping = getattr(getattr(auto, "_model_mapping", None), "_model_mapping", {})
        if isinstance(auto, type) and auto.__name__.startswith("AutoModelFor") and mapping.get(kind) == name:
            return auto.__name__
    return name
