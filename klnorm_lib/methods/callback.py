"""The one callback a Trainer needs: it counts steps, logs the penalties, and refuses settings that lose them."""

from __future__ import annotations

import sys
from collections.abc import Callable

from torch import nn
from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler

from klnorm_lib.methods import monitoring
from klnorm_lib.methods.penalty import PenaltyLayer, penalty_layers
from klnorm_lib.sites import unwrap


class PenaltyCallback(TrainerCallback):
    """Keeps every schedule at the Trainer's global step, resumed runs included, and adds the penalties to its log.

    It drives the model that the Trainer trains, which ``model_init`` may have built after this callback was made.
    """

    _model: nn.Module | None = None  # that is being trained

    def __init__(self, layers: Callable[[], list[PenaltyLayer]]) -> None:
        self._layers = layers

    def on_train_begin(self, args, state, control, **kwargs):
        """Start the schedules; raise ``ValueError`` under label smoothing, where labels never reach the model."""
        if args.label_smoothing_factor:
            raise ValueError(
                "label_smoothing_factor makes the Trainer compute the loss itself, so the penalty would be lost; "
                "set it to 0"
            )
        self._advance(state.global_step, kwargs.get("model"))
        if kwargs.get("model") is not None:
            self._model = unwrap(kwargs["model"])
            monitoring.start(self._model, penalty_layers(self._model))
            log_before_others(self, sys._getframe(1).f_locals.get("self"))

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Add what the penalties did since the last row of the training loss; other rows stay as they are."""
        if self._model is not None and logs is not None and "loss" in logs:
            row = monitoring.collect(self._model, penalty_layers(self._model), state.global_step)
            logs.update(row)
            state.log_history[-1].update(row)

    def on_train_end(self, args, state, control, **kwargs):
        """Keep nothing more for the log."""
        if self._model is not None:
            monitoring.stop(self._model, penalty_layers(self._model))
            self._model = None

    def on_step_end(self, args, state, control, **kwargs):
        """One more optimiser step."""
        self._advance(state.global_step, kwargs.get("model"))

    def _advance(self, step: int, model: nn.Module | None) -> None:
        trained = [] if model is None else penalty_layers(unwrap(model))
        for layer in trained or self._layers():
            layer.advance(step)


def log_before_others(callback: TrainerCallback, handler: object) -> None:
    """Put ``callback`` first among those of a Trainer's ``handler``.

    The Trainer puts its trackers before the callbacks it is given, and they would report a row before it is complete.
    """
    if isinstance(handler, CallbackHandler) and callback in handler.callbacks:
        handler.callbacks.remove(callback)
        handler.callbacks.insert(0, callback)
