"""Optimiser steps that train a changed model: counted for its schedules, refused after nothing but evaluation mode."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

from torch import nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from klnorm_lib.methods.penalty import PenaltyLayer

_watched: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_installed: list = []  # the handles of the hooks, once they are there
_IN_EVALUATION = (
    "an optimiser stepped on {model}, whose gradient came back in evaluation mode, where there is neither a penalty "
    "nor dropout, and which had no forward in training mode since the last step. Call model.train() before training "
    "(Lightning trains a model in the mode that it was handed in)"
)


def watch(model: nn.Module) -> None:
    """Tell the penalised layers of ``model`` of every step of an optimiser that holds a parameter of it.

    Values of parameters tell too little (they stay where the learning rate is 0), and their version numbers nothing:
    fused optimisers do not raise them.
    """
    if not _installed:
        _installed.append(register_optimizer_step_pre_hook(_about_to_step))
        _installed.append(register_optimizer_step_post_hook(_stepped))
    _watched.add(model)


def _about_to_step(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
    closure = args[1] if len(args) > 1 else kwargs.get("closure")  # the optimiser itself is the first
    for model in _trained_by(optimizer) if closure is None else ():
        _refuse_in_evaluation(model)


def _stepped(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
    for model in _trained_by(optimizer):
        _refuse_in_evaluation(model)  # of a closure, which ran inside the step
        model._klnorm_trained = model._klnorm_evaluated = False
        for layer in model.modules():
            if isinstance(layer, PenaltyLayer):
                layer.missed += 1


def _trained_by(optimizer: Optimizer) -> Iterator[nn.Module]:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for model in list(_watched):
        if any(id(p) in held for p in model.parameters()):  # stops at the first, as a rule at the embeddings
            yield model


def _refuse_in_evaluation(model: nn.Module) -> None:
    known = model.__dict__
    if known.get("_klnorm_evaluated") and not known.get("_klnorm_trained"):
        model._klnorm_evaluated = False
        raise RuntimeError(_IN_EVALUATION.format(model=type(model).__name__))
