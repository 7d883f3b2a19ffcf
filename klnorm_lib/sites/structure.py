"""Roles of dropouts in encoders that do not name their parts as BERT or wav2vec 2.0 do: from where they stand.

A stack is a list of layers; a list of sublayers inside one layer (T5) or of layers inside a stage (Funnel, Swin) is
told apart by whether its members are of one class. Above the stacks there is only ``embeddings``. Inside a layer:

``attention_probs``   in the attention module, unless it is named after the output
``attention_output``  named after the output (residual, projection) of the attention
``ffn_hidden``        between the linear maps of the feed-forward block
``ffn_output``        after them, or held by the layer itself: such a rate is often read for the attention's output too

Cross-attention has ``cross_attention_probs`` and ``cross_attention_output``. Where several stacks have the same kinds
the site's name begins with that of its stack: ``encoder.layer.0.ffn_output``, ``decoder.layer.0.ffn_output``.
Rates that no code of their module reads (ALBERT's ``dropout`` of a layer) are left out.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

_ATTENTION = re.compile(r".*(?:attn|attention).*", re.IGNORECASE)
_CROSS = re.compile(r".*(?:encoder_attn|encdecattention|cross_?attn|cross_?attention).*", re.IGNORECASE)
_OUTPUT = re.compile(r".*(?:output|resid|proj|post_attention|hidden).*", re.IGNORECASE)
_FEED_FORWARD = re.compile(
    r"(?:mlp|ffn?s?\d?|feed_?forward|dense\w*|\w*output|intermediate|conv_module)", re.IGNORECASE
)
_FEED_FORWARD_MAP = re.compile(r"(?:\w*ffn\w*|fc\d|lin\w*\d|\w*moe\w*|experts)", re.IGNORECASE)
# CANINE joins characters, and Funnel drops its relative positions, above the layers.
_BEFORE_LAYERS = re.compile(
    r"(?:(?:\w+\.)?(?:\w*embeddings|feature_projection|projection|attention_structure)\.)?"
    r"(?:encoder\.|decoder\.)?(?:text_model\.)?\w*drop\w*"
)


Modules = Mapping[str, nn.Module]  # by path, without peft's wrappers


@dataclass(frozen=True)
class Role:
    """Where a rate stands: the first part of its stack's path, the layer's number in it (None: above), its kind."""

    stack: str
    layer: int | None
    kind: str


def roles(modules: Modules, paths: list[str]) -> dict[str, Role | None]:
    """Path of a rate, without peft's wrappers -> its role (None: unknown); paths that no code reads are left out."""
    found: dict[str, Role | None] = {}
    numbers: dict[str, dict[tuple[str, ...], int]] = {}
    read = [path for path in paths if is_read(modules, path)]
    for path in read:
        stack, index, inside = split(modules, path)
        if stack is None:
            head = path.split(".")[0] if path.startswith(("encoder.", "decoder.")) else ""
            found[path] = Role(head, None, "embeddings") if _BEFORE_LAYERS.fullmatch(path) else None
            continue
        number = number_of(index, numbers.setdefault(stack, {}))
        kind = _kind(modules, path.removesuffix("." + inside), inside)
        found[path] = None if kind is None else Role(stack.split(".")[0], number, kind)
    return _hidden(found)


def has_attention(path: str, cross: bool = False) -> bool:
    """Whether a part of ``path`` is named as attention modules are; ``cross``: those that read another encoder."""
    return any((_CROSS if cross else _ATTENTION).fullmatch(part) for part in path.split("."))


def is_feed_forward(path: str) -> bool:
    """Whether the first part of ``path``, of a parameter in a layer, is named as feed-forward blocks or their maps."""
    return bool(_FEED_FORWARD.fullmatch(path.split(".")[0]) or _FEED_FORWARD_MAP.fullmatch(path.split(".")[0]))


def number_of(index: tuple[str, ...], stages: dict[tuple[str, ...], int]) -> int:
    """A layer's number: its index in the list; of a layer in a stage how many were met (``stages``) before."""
    return int(index[0]) if len(index) == 1 else stages.setdefault(index, len(stages))


def is_read(modules: Modules, path: str) -> bool:
    """Whether a method of the module that holds ``path``, other than its constructor, uses that name."""
    parent, _, name = path.rpartition(".")
    holder = modules[parent]
    for owner in type(holder).__mro__:
        if owner is nn.Module:
            return False
        for method, value in vars(owner).items():
            code = getattr(inspect.unwrap(value) if callable(value) else value, "__code__", None)
            if method != "__init__" and code is not None and name in code.co_names:
                return True
    return False


def is_foreign(modules: Modules, path: str) -> bool:
    """Whether ``path`` is no attribute that the constructors of its module set: somebody put it there."""
    parent, _, name = path.rpartition(".")
    owners = type(modules[parent]).__mro__
    codes = [vars(owner)["__init__"].__code__ for owner in owners if hasattr(vars(owner).get("__init__"), "__code__")]
    return not any(name in code.co_names for code in codes)


def prefixed(found: dict[str, Role]) -> bool:
    """Whether two stacks have a site of one name, so that names need the stack's."""
    stacks: dict[tuple[int | None, str], set[str]] = {}
    for role in found.values():
        if role.layer is not None:
            stacks.setdefault((role.layer, role.kind), set()).add(role.stack)
    return any(len(names) > 1 for names in stacks.values())


def split(modules: Modules, path: str) -> tuple[str | None, tuple[str, ...], str]:
    """The stack's path, the layer's index in it (two numbers for a layer in a stage), and the path inside the layer."""
    parts = path.split(".")
    at = next((k for k, part in enumerate(parts) if part.isdigit()), None)
    if at is None:
        return None, (), path
    stack, index = ".".join(parts[:at]), [parts[at]]
    while True:
        deeper = next((k for k in range(at + 1, min(at + 3, len(parts))) if parts[k].isdigit()), None)
        if deeper is None or len({type(m) for m in modules[".".join(parts[:deeper])].children()}) > 1:
            return stack, tuple(index), ".".join(parts[at + 1 :])
        index.append(parts[deeper])
        at = deeper


def _kind(modules: Modules, layer: str, inside: str) -> str | None:
    *around, name = inside.split(".")
    # XLM has a list of attentions and a list of feed-forward blocks; elsewhere a layer is not named after a part.
    block = [part for part in (layer.split(".")[0], *around) if _ATTENTION.fullmatch(part)]
    cross = "cross_" if any(_CROSS.fullmatch(part) for part in around) else ""
    if block:
        outer = [*around, name] if name != "attention_dropout" else around
        after = any(_OUTPUT.fullmatch(part) for part in outer)
        return f"{cross}attention_{'output' if after else 'probs'}"
    if around and around[-1].isdigit():  # a sublayer, T5: its children say which
        children = list(modules[f"{layer}.{'.'.join(around)}"]._modules)
        inner = [child for child in children if _ATTENTION.fullmatch(child)]
        if not inner:
            return "ffn_output"
        return f"{'cross_' if _CROSS.fullmatch(inner[0]) else ''}attention_output"
    if name in ("activation_dropout", "intermediate_dropout"):
        return "ffn_hidden"
    if any(_FEED_FORWARD.fullmatch(part) for part in around) or "mlp" in name:
        module = modules[f"{layer}.{'.'.join(around)}" if around else layer]
        return "ffn_hidden" if around and _before_last_map(module, name) else "ffn_output"
    if not around and (_ATTENTION.fullmatch(name) or name in ("resid_dropout", "dropout1")):
        return "attention_output"
    if not around and name in ("dropout", "dropout2", "hidden_dropout", "dropout_rate"):
        return "ffn_output"
    return None


def _before_last_map(module: nn.Module, name: str) -> bool:
    names = list(module._modules)
    maps = [k for k, child in enumerate(module._modules.values()) if getattr(child, "weight", None) is not None
            and child.weight.dim() == 2]  # fmt: skip
    return name in names and bool(maps) and names.index(name) < maps[-1]


def _hidden(found: dict[str, Role | None]) -> dict[str, Role | None]:
    """Of two dropouts of the feed-forward block the one deeper inside is the hidden one."""
    outputs = {path: role for path, role in found.items() if role is not None and role.kind == "ffn_output"}
    holders = Counter((role.stack, role.layer) for role in outputs.values())
    for path, role in outputs.items():
        same = [p for p, other in outputs.items() if (other.stack, other.layer) == (role.stack, role.layer)]
        deeper = path.count(".") > min(p.count(".") for p in same)
        if holders[role.stack, role.layer] > 1 and deeper and "conv_module" not in path:
            found[path] = Role(role.stack, role.layer, "ffn_hidden")
    return found
