"""What a Trainer calls: the callback that it is given counts steps, one that every Trainer has logs the penalties."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from transformers import TrainerCallback

from klnorm_lib.methods import monitoring
from klnorm_lib.methods.penalty import PenaltyLayer, penalty_layers


class PenaltyCallback(TrainerCallback):
    """Keeps every schedule at the Trainer's global step, resumed runs included, and refuses label smoothing.

    It drives the model that the Trainer trains, which ``model_init`` may have built after this callback was made.
    """

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

    def on_step_end(self, args, state, control, **kwargs):
        """One more optimiser step."""
        self._advance(state.global_step, kwargs.get("model"))

    def _advance(self, step: int, model: nn.Module | None) -> None:
        trained = changed_model(model)
        for layer in self._layers() if trained is None else penalty_layers(trained):
            layer.advance(step)


class PenaltyLog(TrainerCallback):
    """Adds the penalties of the model that is trained, if it has any, to the Trainer's own log.

    ``klnorm_lib.doors`` puts it into every Trainer, before the trackers, which report a row at once.
    """

    _model: nn.Module | None = None  # that is being trained

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Keep means from here on."""
        self._model = changed_model(model)
        if self._model is not None:
            monitoring.start(self._model, penalty_layers(self._model))

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


def changed_model(model: nn.Module | None) -> nn.Module | None:
    """The model in ``model``, which may wrap it, that methods were applied to; None where there is none."""
    inside = () if model is None else model.modules()
    return next((m for m in inside if m.__dict__.get("_klnorm_methods") is not None), None)
