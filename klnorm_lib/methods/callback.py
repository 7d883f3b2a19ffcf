"""The one callback a Trainer needs: it counts optimiser steps and refuses settings that would lose the penalty."""

from __future__ import annotations

from collections.abc import Callable

from transformers import TrainerCallback

from klnorm_lib.methods.penalty import PenaltyLayer


class PenaltyCallback(TrainerCallback):
    """Keeps every schedule at the Trainer's global step, resumed runs included."""

    def __init__(self, layers: Callable[[], list[PenaltyLayer]]) -> None:
        self._layers = layers

    def on_train_begin(self, args, state, control, **kwargs):
        """Start the schedules; raise ``ValueError`` under label smoothing, where labels never reach the model."""
        if args.label_smoothing_factor:
            raise ValueError(
                "label_smoothing_factor makes the Trainer compute the loss itself, so the penalty would be lost; "
                "set it to 0"
            )
        self._advance(state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        """One more optimiser step."""
        self._advance(state.global_step)

    def _advance(self, step: int) -> None:
        for layer in self._layers():
            layer.advance(step)
