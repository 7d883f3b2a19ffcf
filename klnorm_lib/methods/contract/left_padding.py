"""Whether a model gives out the same for a text that is padded on the left: tried once, on the first one seen."""

from __future__ import annotations

import inspect
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from klnorm_lib.methods.contract.guards import exporting
from klnorm_lib.sites.measuring import measuring

_MOVES = (
    "padding on the left changes what {model} gives out for a text, by {moved:.2g} where the values are up to "
    "{size:.2g}: it {reason}. {remedy}"
)
_POSITIONS = (
    "counts positions from the padding",
    "Pass position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0), or pad on the right (tokenizer.padding_side = "
    "'right')",
)
_OTHER = "reads what stands first, or its position", "Pad on the right (tokenizer.padding_side = 'right')"
_RELATIVE = {torch.float64: 1e-3, torch.float32: 1e-3}
_RELATIVE_HALF = 0.05


def warn_of_left_padding(model: nn.Module, base_forward: Callable, given: inspect.BoundArguments) -> None:
    """Warn if the first text padded on the left has other outputs than it has without its padding.

    Masks are looked at until one has padding, since a tokenizer pads on one side; then one row is tried.
    """
    seen = model.__dict__.setdefault("_klnorm_seen", set())
    if torch.compiler.is_compiling() or "padding" in seen or measuring() or exporting() or torch.jit.is_tracing():
        return
    ids, mask = given.arguments.get("input_ids"), given.arguments.get("attention_mask")
    if not all(isinstance(x, Tensor) and x.ndim == 2 for x in (ids, mask)) or ids.shape != mask.shape:
        return
    if torch._C._functorch.peek_interpreter_stack() or bool(mask.all()):
        return
    seen.add("padding")
    left = ((mask[:, 0] == 0) & (mask[:, -1] != 0)).nonzero()
    if any(getattr(m, "attention_type", None) == "block_sparse" for m in model.modules()):
        return  # BigBird changes its attention for good when it reads a short text
    if len(left) == 0 or _is_sharded(model):
        return  # sharded weights are gathered by all processes together
    row = slice(int(left[0]), int(left[0]) + 1)
    positions = given.arguments.get("position_ids")
    positions = None if positions is None else positions[row] if len(positions) == len(ids) else positions
    with _evaluating(model):
        found = _moved(lambda **inputs: base_forward(model, **inputs), ids[row], mask[row], positions)
        if found is None:
            return
        reason, remedy = _OTHER
        if "position_ids" in inspect.signature(base_forward).parameters:
            counted = (mask[row].cumsum(-1) - 1).clamp(min=0)
            if _moved(lambda **inputs: base_forward(model, **inputs), ids[row], mask[row], counted) is None:
                reason, remedy = _POSITIONS
    text = _MOVES.format(model=type(model).__name__, moved=found[0], size=found[1], reason=reason, remedy=remedy)
    warnings.warn(text, stacklevel=2)


def _is_sharded(model: nn.Module) -> bool:
    wrapped = any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules())
    return wrapped or any(p.numel() == 0 or hasattr(p, "placements") for p in model.parameters())


def _moved(forward: Callable, ids: Tensor, mask: Tensor, positions: Tensor | None) -> tuple[float, float] | None:
    """By how much the padding of one row moves the first output at its real positions, and how large that is."""
    start = int((mask[0] != 0).long().argmax())
    placed = {} if positions is None else {"position_ids": positions}
    try:
        alone = forward(input_ids=ids[:, start:], attention_mask=mask[:, start:])[0]
        padded = forward(input_ids=ids, attention_mask=mask, **placed)[0]
    except Exception:  # a model that wants more than ids and mask cannot be tried, and has done nothing wrong
        return None
    if alone.ndim == 3:
        padded = padded[:, -alone.shape[1] :]
    moved, size = (padded - alone).abs().max().item(), alone.abs().max().item()
    return None if moved <= _RELATIVE.get(alone.dtype, _RELATIVE_HALF) * size else (moved, size)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradient and without hooks, whose owners expect the user's forwards alone."""
    before = [(m, m.training, m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
    try:
        for module, *_ in before:
            module.training = False
            module._forward_hooks, module._forward_pre_hooks = OrderedDict(), OrderedDict()
        with torch.no_grad():
            yield
    finally:
        for module, mode, hooks, pre_hooks in before:
            module.training = mode
            module._forward_hooks, module._forward_pre_hooks = hooks, pre_hooks
