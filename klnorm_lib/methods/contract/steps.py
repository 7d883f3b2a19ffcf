"""Optimiser steps that train a changed model, counted, so that a schedule that nobody advances is noticed."""

from __future__ import annotations

import weakref

from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from klnorm_lib.methods.penalty import PenaltyLayer

_watched: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_installed: list = []  # the handle of the hook, once it is there


def watch(model: nn.Module) -> None:
    """Tell the penalised layers of ``model`` of every step of an optimiser that holds a parameter of it.

    Values of parameters tell too little (they stay where the learning rate is 0), and their version numbers nothing:
    fused optimisers do not raise them.
    """
    if not _installed:
        _installed.append(register_optimizer_step_post_hook(_stepped))
    _watched.add(model)


def _stepped(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for model in list(_watched):
        if any(id(p) in held for p in model.parameters()):  # stops at the first, as a rule at the embeddings
            for layer in model.modules():
                if isinstance(layer, PenaltyLayer):
                    layer.missed += 1
