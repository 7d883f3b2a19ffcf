"""Watches over a changed model: that its penalty reaches the loss, and that what a method added is still there."""

from __future__ import annotations

import warnings
from collections import Counter
from inspect import BoundArguments

import torch
from torch import Tensor, nn

from klnorm_lib.methods.penalty import PenaltyLayer
from klnorm_lib.sites.measuring import measuring

_LOST = (
    "the penalty of the last training forward reached no loss: a loss was computed from the logits (by a "
    "compute_loss_func, label_smoothing_factor or code of your own) without outputs.loss. Use outputs.loss, or add "
    "klnorm_lib.auxiliary_loss(model) to your own loss"
)
_PASSED_BY = (
    "the encoder of a model with a penalty was trained without the model's own forward, so the penalty would be lost: "
    "{model}.forward was replaced (as trl's SFTTrainer does), or the encoder was called directly. Call the model and "
    "use outputs.loss, or train without a penalty"
)
_GONE = (
    "what a method added to {model} is no longer there ({gone}): a part of the model was replaced after apply. "
    "Replace heads and other parts first, then apply"
)
_NOT_DIVIDED = (
    "the Trainer was built before apply, so it does not divide the loss by the accumulation steps and every step would "
    "be too long; call apply first, then build the Trainer"
)
_EVALUATION = (
    "a gradient comes back through the loss of a model in evaluation mode, where there is neither a penalty nor "
    "dropout; to train, call model.train() first (Lightning trains a model in the mode that it was handed in)"
)


def watch(model: nn.Module, outputs: object, loss: Tensor | None) -> None:
    """Raise as soon as a gradient comes back through outputs whose penalty neither was read nor is in it.

    ``outputs``: the logits, or for a model without a head all that it gives out, whose first tensor with a gradient
    is watched.
    """
    watched = _first_tensor(outputs)
    if watched is None:
        return
    model._klnorm_pending = True

    def found(gradient: Tensor) -> None:
        model._klnorm_pending = False

    def check(gradient: Tensor) -> None:
        if model._klnorm_pending:
            model._klnorm_pending = False
            raise RuntimeError(_LOST)

    # Autograd reaches the logits last, when all that was computed from them, outputs.loss included, has its gradient.
    watched.register_hook(check)
    if loss is not None:
        loss.register_hook(found)


def _first_tensor(outputs: object) -> Tensor | None:
    if isinstance(outputs, Tensor):
        return outputs if outputs.requires_grad else None
    values = outputs.values() if hasattr(outputs, "values") else outputs if isinstance(outputs, (tuple, list)) else ()
    return next((found for value in values if (found := _first_tensor(value)) is not None), None)


def guard_encoder(model: nn.Module) -> None:
    """Have the encoder of ``model`` raise when it is trained without the model's forward, which has the penalty."""
    encoder = model.base_model
    if encoder is model or not _has_penalty(model) or hasattr(encoder, "_klnorm_model"):
        return
    encoder._klnorm_open, encoder._klnorm_model = False, type(model).__name__
    encoder.register_forward_pre_hook(_refuse_alone)


def _has_penalty(model: nn.Module) -> bool:
    return any(isinstance(m, PenaltyLayer) and m.schedule.beta > 0 for m in model.modules())


def _refuse_alone(encoder: nn.Module, _args: tuple) -> None:
    if encoder._klnorm_open or not encoder.training or not torch.is_grad_enabled():
        return
    if any(p.requires_grad for p in encoder.parameters()) and not torch.compiler.is_compiling():
        raise RuntimeError(_PASSED_BY.format(model=encoder._klnorm_model))


def modules_to_keep(model: nn.Module) -> Counter[str]:
    """How many modules of each class methods added; one each where peft keeps copies, which merging drops."""
    found = _added(model)
    copied = any(type(m).__name__ == "ModulesToSaveWrapper" for m in model.modules())  # peft need not be installed
    return Counter(set(found)) if copied else found


def _added(model: nn.Module) -> Counter[str]:
    return Counter(type(m).__name__ for m in model.modules() if getattr(type(m), "added_by_klnorm", False))


def check_whole(model: nn.Module) -> None:
    """Raise ``RuntimeError`` when a module that a method added is gone. peft may have copied some."""
    before = getattr(model, "_klnorm_added", None)
    gone = before - _added(model) if before else None
    if gone:
        raise RuntimeError(_GONE.format(model=type(model).__name__, gone=", ".join(sorted(gone))))


def check_divided(given: BoundArguments) -> None:
    """Raise ``RuntimeError`` when a Trainer counts the labels of several parts of a batch, so does not divide itself.

    It decides that when it is built: ``apply`` sets ``accepts_loss_kwargs = False``, with which it does not count.
    """
    labels = given.arguments.get("labels")
    count = given.arguments.get("num_items_in_batch", given.kwargs.get("num_items_in_batch"))
    if labels is not None and count is not None and int(count) > int((labels != -100).sum()):
        raise RuntimeError(_NOT_DIVIDED)


def warn_in_evaluation(model: nn.Module, loss: Tensor) -> None:
    """Warn once when a gradient comes back through ``loss``, of a model in evaluation mode with a penalty or noise."""
    if measuring() or getattr(model, "_klnorm_warned", False) or torch._C._functorch.peek_interpreter_stack():
        return
    if not _has_penalty(model) and all("deterministic" in method.properties for method in model._klnorm_methods):
        return

    def warn(gradient: Tensor) -> None:
        if not model._klnorm_warned:
            model._klnorm_warned = True
            warnings.warn(_EVALUATION, stacklevel=2)

    model._klnorm_warned = False
    loss.register_hook(warn)


def exporting() -> bool:
    """Whether torch.export or torch.onnx.export is reading the forward."""
    return getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()
