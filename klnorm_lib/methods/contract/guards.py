"""Watches over a changed model: that its penalty reaches the loss, and that what a method added is still there."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
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
    "the encoder of a model with {what} was trained without the model's own forward, so that {what} would be lost: "
    "{model}.forward was replaced (as trl's SFTTrainer does), or the encoder was called directly. Call the model and "
    "use outputs.loss, or train without the method"
)
_GONE = (
    "what a method added to {model} is no longer there ({gone}): a part of the model was replaced after apply. "
    "Replace heads and other parts first, then apply"
)
_NOT_DIVIDED = (
    "the Trainer was built before apply, so it does not divide the loss by the accumulation steps and every step would "
    "be too long; call apply first, then build the Trainer"
)
_REPLACED = (
    "{path} was applied to a parameter of shape {shape} that is no longer part of the model: something was replaced "
    "after apply (a head, embeddings, layers, or all of them by sharding). Replace it first, then apply"
)
_RESIZED = (
    "{0} was applied to a parameter of shape {1}, which now has shape {2}: the model was resized after apply (by "
    "resize_token_embeddings, say). Resize it first, then apply"
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
    """Have the encoder of ``model`` raise when it is trained without the model's forward, which has the penalty.

    Where a method has a layer before the head and no penalty, the parts of the model may be called one by one; what is
    refused is a forward of somebody else's in place of the model's.
    """
    encoder = model.base_model
    if encoder is model or hasattr(encoder, "_klnorm_model"):
        return
    penalised = _has_penalty(model)
    if not penalised and not any(getattr(type(m), "contains_head", False) for m in model.modules()):
        return
    encoder._klnorm_open, encoder._klnorm_model = False, type(model).__name__
    encoder._klnorm_alone = "a penalty" if penalised else None
    encoder.register_forward_pre_hook(_refuse_alone)
    if "forward" in vars(model):
        note_forward(model)


def note_forward(model: nn.Module) -> None:
    """Somebody put a forward on the very ``model``; it may call the model's own (accelerate's does) or not."""
    encoder = model.base_model
    if "_klnorm_alone" in vars(encoder) and encoder._klnorm_alone is None:
        encoder._klnorm_alone = "a layer before its head"


def _has_penalty(model: nn.Module) -> bool:
    return any(isinstance(m, PenaltyLayer) and m.schedule.beta > 0 for m in model.modules())


def _refuse_alone(encoder: nn.Module, _args: tuple) -> None:
    if encoder._klnorm_open or not encoder.training or not torch.is_grad_enabled():
        return
    what = encoder.__dict__.get("_klnorm_alone", "a penalty")
    if what and any(p.requires_grad for p in encoder.parameters()) and not torch.compiler.is_compiling():
        raise RuntimeError(_PASSED_BY.format(what=what, model=encoder._klnorm_model))


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


def check_kept(model: nn.Module) -> None:
    """Raise ``RuntimeError`` when parameters that a method keeps something of were replaced or resized after it.

    Such modules say ``kept_parameters()``, each with what is kept of it, of its shape, or None.
    """
    if getattr(model, "_is_replica", False):  # of DataParallel, which has tensors in place of parameters
        return
    missing = missing_kept(model)
    if len(missing) > model.__dict__.get("_klnorm_missing", 0):  # methods of one apply may replace each other's
        path, parameter = missing[-1]
        raise RuntimeError(_REPLACED.format(path=path, shape=tuple(parameter.shape)))
    for path, parameter, tensor in _kept(model):
        # Shards of other processes may be empty.
        if tensor is not None and tensor.shape != parameter.shape and parameter.numel():
            raise RuntimeError(_RESIZED.format(path, tuple(tensor.shape), tuple(parameter.shape)))


def missing_kept(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that methods keep something of and that are not part of ``model``."""
    held = {id(parameter) for parameter in model.parameters()}
    return [(path, parameter) for path, parameter, _ in _kept(model) if id(parameter) not in held]


def _kept(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, Tensor | None]]:
    for path, module in model.named_modules():
        kept = getattr(type(module), "kept_parameters", None)
        yield from ((path, *each) for each in kept(module)) if kept is not None else ()


def warn_in_evaluation(model: nn.Module, loss: Tensor) -> None:
    """Warn once when a gradient comes back through ``loss``, of a model in evaluation mode with a penalty or noise.

    With a penalty, a step of an optimiser that follows raises, unless there was a forward in training mode: ``steps``.
    """
    if measuring() or torch._C._functorch.peek_interpreter_stack():
        return
    penalised = _has_penalty(model)
    if not penalised and all("deterministic" in method.properties for method in model._klnorm_methods):
        return

    def warn(gradient: Tensor) -> None:
        model._klnorm_evaluated = penalised
        if not getattr(model, "_klnorm_warned", False):
            model._klnorm_warned = True
            warnings.warn(_EVALUATION, stacklevel=2)

    loss.register_hook(warn)


def exporting() -> bool:
    """Whether torch.export or torch.onnx.export is reading the forward."""
    return getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()
