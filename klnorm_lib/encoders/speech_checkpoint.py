"""Checkpoints of the speech pretraining: whole or not at all, and only of the same configuration."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch

FREE = ("minutes", "device", "checkpoint_steps", "out", "corpora")


def save(config, out: Path, model, optimiser, step: int, seconds: float, seen: float) -> None:
    """Write ``out/checkpoint.pt``; ``seen``: seconds of sound so far."""
    state = {"config": identity(config), "model": model.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(state | {"step": step, "seconds": seconds, "seen": seen}, out / "checkpoint.part")
    os.replace(out / "checkpoint.part", out / "checkpoint.pt")


def resume(config, out: Path, model, optimiser, device) -> tuple[int, float, float]:
    """``(step, seconds, seconds of sound)`` of the checkpoint, now in model and optimiser; zeros if there is none.

    Raises ``ValueError`` when it is corrupt or belongs to another configuration.
    """
    file = out / "checkpoint.pt"
    if not file.exists():
        return 0, 0.0, 0.0
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(f"checkpoint {file} is corrupt or truncated ({error}); delete it to start afresh") from error
    if state["config"] != identity(config):
        raise ValueError(f"checkpoint {file} belongs to another configuration; use another --out or delete it")
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"], state["seconds"], state["seen"]


def identity(config) -> str:
    """The settings that a resumed run must share, as JSON."""
    return json.dumps({k: v for k, v in asdict(config).items() if k not in FREE}, sort_keys=True)
