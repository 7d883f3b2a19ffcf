"""Dropout rates in a model's config that nothing in the model reads."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType

from torch import nn

from klnorm_lib.sites.walk import unwrap


def ignored_rates(model: nn.Module) -> dict[str, float]:
    """Field of the config -> its rate above 0, where no code of the model's modules has the field's name.

    ``classifier_dropout`` counts in classifiers only. Other fields count where they are not at the default of their
    class: those of heads that the model does not have are no surprise.
    """
    inner = unwrap(model)
    config = inner.config
    fields = {k: v for k, v in vars(config).items() if "dropout" in k or k.endswith("pdrop")}
    rates = {
        k: float(v) for k, v in fields.items() if isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0
    }
    if not rates:
        return {}
    aliases = getattr(config, "attribute_map", {})
    known = _names_in(inner)
    default = config if getattr(config, "has_no_defaults_at_init", False) else type(config)()
    found = {}
    for field, rate in rates.items():
        if known & {field, *(alias for alias, of in aliases.items() if of == field)}:
            continue
        said = "Classification" in type(inner).__name__ if "classifier" in field else getattr(default, field, 0) != rate
        if said:
            found[field] = rate
    return found


def notes_on(model: nn.Module) -> list[str]:
    """What the config promises and the model does not do, and dropout that is no site, one sentence each."""
    inner = unwrap(model)
    name, config = type(inner).__name__, inner.config
    notes = [
        f"config.{field} is {rate:g}, but nothing in {name} reads it: no such dropout runs"
        for field, rate in ignored_rates(model).items()
    ]
    if any(getattr(module, "attention_type", None) == "block_sparse" for module in inner.modules()):
        notes.append(
            f"the block-sparse attention of {name} changes to full attention for good at the first batch of up to "
            f"{(5 + 2 * config.num_random_blocks) * config.block_size} tokens, and drops its weights at the rate of "
            'the config, which is no site then; for short texts load it with attention_type="original_full"'
        )
    return notes


def _names_in(model: nn.Module) -> set[str]:
    """Every name and string in the code of the classes of a model's modules, but for torch's and the common base."""
    from transformers import PreTrainedModel

    classes = {cls for module in model.modules() for cls in type(module).__mro__}
    found: set[str] = set()
    for cls in classes - {nn.Module, PreTrainedModel, object}:
        for value in vars(cls).values():
            code = getattr(inspect.unwrap(value) if callable(value) else value, "__code__", None)
            if code is not None:
                found.update(_names(code))
    return found


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):  # getattr(config, "classifier_dropout", None)
            yield constant
        elif isinstance(constant, CodeType):
            yield from _names(constant)
