"""Checkpoints of a pretraining: whole or not at all, and only of the same configuration."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch

from klnorm_lib.encoders.sources import portable
from klnorm_lib.pretraining.schedule import decay_start

FREE = ("minutes", "device", "checkpoint_steps", "out", "corpora", "steps")


def save(config, out: Path, model, optimiser, **progress: float) -> None:
    """Write ``out/checkpoint.pt``; ``progress``: ``step`` and whatever else ``resume`` shall give back."""
    state = {"config": identity(config), "steps": config.steps, "progress": progress}
    state |= {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(state, out / "checkpoint.part")
    os.replace(out / "checkpoint.part", out / "checkpoint.pt")


def resume(config, out: Path, model, optimiser, device) -> dict[str, float]:
    """What ``save`` was given, its weights now in model and optimiser; an empty dictionary if there is no checkpoint.

    The number of steps may change as long as the learning rate has not begun to fall for either number: up to there
    both runs are the same. Raises ``ValueError`` after that, and for a checkpoint that is corrupt or belongs to another
    configuration.
    """
    file = out / "checkpoint.pt"
    if not file.exists():
        return {}
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(f"checkpoint {file} is corrupt or truncated ({error}); delete it to start afresh") from error
    if state["config"] != identity(config):
        raise ValueError(f"checkpoint {file} belongs to another configuration; use another --out or delete it")
    falls = min(decay_start(steps, config.decay_fraction) for steps in (config.steps, state["steps"]))
    if config.steps != state["steps"] and state["progress"]["step"] > falls:
        raise ValueError(
            f"checkpoint {file} was made for {state['steps']} steps and the learning rate may already have begun to "
            f"fall; go on with --steps {state['steps']}"
        )
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return state["progress"]


def identity(config) -> str:
    """The settings that a resumed run must share, as JSON; a teacher by its portable name."""
    kept = {k: v for k, v in asdict(config).items() if k not in FREE}
    if kept.get("teacher"):
        kept["teacher"] = portable(kept["teacher"])
    return json.dumps(kept, sort_keys=True)
