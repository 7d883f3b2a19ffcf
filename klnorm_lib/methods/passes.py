"""Two forward passes of one training step, for methods that compare what is predicted under two dropout masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from klnorm_lib.methods.penalty import PenaltyLayer

_NO_LOSS = (
    "a method that compares two passes takes the mean of their task losses, so the model must compute them: pass "
    "labels to the model's call and use outputs.loss. A loss of your own from the logits would see one pass only"
)


def twice(
    layers: Sequence[PenaltyLayer],
    first: tuple[object, Tensor | None],
    one_pass: Callable[[], tuple[object, Tensor | None]],
    has_labels: bool,
    samples: int,
) -> tuple[object, Tensor | None]:
    """The outputs of the first pass with the mean loss of both, and the mean penalty of both plus the comparison.

    ``first``: outputs and penalty of the pass already made. Where the model was given no labels there is no second
    pass, and a gradient that comes back through the logits raises ``RuntimeError``.
    """
    outputs, total = first
    loss, logits = loss_and_logits(outputs, has_labels)
    if loss is None:
        if logits is not None and logits.requires_grad:
            logits.register_hook(_refuse)
        return first
    if logits is None or logits.ndim != 2:
        raise ValueError(
            "two passes are compared by one prediction an example, outputs.logits of shape (batch, outputs); this "
            f"model gives {'none' if logits is None else tuple(logits.shape)}. Use a sequence or audio classification "
            "model"
        )
    others, other_total = one_pass()
    other_loss, other_logits = loss_and_logits(others, has_labels)
    differences = [
        layer.compare(*(x.unflatten(0, (samples, -1)).mean(0) for x in (logits, other_logits))) for layer in layers
    ]
    for layer, difference in zip(layers, differences, strict=True):
        layer.note(difference)
    terms = [(t / 2).to(logits.device) for t in (total, other_total) if t is not None]
    mean = (loss + other_loss) / 2  # (L_1 + L_2) / 2
    if isinstance(outputs, tuple):
        outputs = (mean, *outputs[1:])
    else:
        outputs["loss"] = mean
    return outputs, torch.stack([*terms, *differences]).sum()


def loss_and_logits(outputs: object, has_labels: bool) -> tuple[Tensor | None, Tensor | None]:
    """Loss and logits of a model's outputs, named or in a tuple; None for what is not there."""
    if isinstance(outputs, tuple):
        return (outputs[0] if has_labels else None), outputs[int(has_labels)]
    return outputs.get("loss"), outputs.get("logits")


def _refuse(gradient: Tensor) -> None:
    raise RuntimeError(_NO_LOSS)
