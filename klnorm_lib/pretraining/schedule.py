"""Learning rate and weight decay of a pretraining: a short rise, a long level, a linear fall to zero."""

from __future__ import annotations

import math


def decay_start(steps: int, decay_fraction: float) -> int:
    """The step from which the rate falls."""
    return steps - max(1, math.ceil(decay_fraction * steps))


def rate(step: int, config) -> float:
    r"""Share of the peak rate at ``step``: :math:`\min(1, (s + 1) / w, (n - s) / d)` with w steps of warm-up, n steps
    in all and d steps of decay."""
    decay = config.steps - decay_start(config.steps, config.decay_fraction)
    return min(1.0, (step + 1) / max(1, config.warmup_steps), (config.steps - step) / decay)


def groups(model, weight_decay: float) -> list[dict]:
    """Parameter groups for an optimiser: matrices decay; biases and scales do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
