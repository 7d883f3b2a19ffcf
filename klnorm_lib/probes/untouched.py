"""A training-mode forward pass that leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

# Settings under which a training forward skips layers or masks inputs at random: off while measuring.
_RANDOM_PARTS = {"layerdrop": 0.0, "encoder_layerdrop": 0.0, "apply_spec_augment": False}


@contextmanager
def training_mode(encoder: nn.Module) -> Iterator[None]:
    """Training mode without gradient, checkpointing, layer-drop and SpecAugment; on leaving all is as it was.

    Also after an error. Kept are the training flag of every module, buffers, the config, and the generators of
    torch (CPU and the encoder's accelerators), numpy and Python.
    """
    modules = list(encoder.modules())
    flags = [module.training for module in modules]
    buffers = [(buffer, buffer.clone()) for buffer in encoder.buffers() if not buffer.is_meta]
    config = encoder.config
    settings = {name: getattr(config, name) for name in _RANDOM_PARTS if hasattr(config, name)}
    # Nothing is recomputed without gradients, and reentrant checkpointing would warn about just that.
    checkpointed = [module for module in modules if getattr(module, "gradient_checkpointing", False)]
    with generators_kept(encoder), torch.no_grad():
        try:
            for module in checkpointed:
                module.gradient_checkpointing = False
            for module in modules:
                module.training = True  # not train(): some modules override it to do more
            for name in settings:
                setattr(config, name, _RANDOM_PARTS[name])
            yield
        finally:
            for module in checkpointed:
                module.gradient_checkpointing = True
            for name, value in settings.items():
                setattr(config, name, value)
            for buffer, value in buffers:
                buffer.copy_(value)
            for module, flag in zip(modules, flags, strict=True):
                module.training = flag


@contextmanager
def generators_kept(encoder: nn.Module) -> Iterator[None]:
    """Random numbers may be drawn within this block; on leaving all generators are as they were."""
    accelerators: dict[str, set[int]] = {}
    for tensor in (*encoder.parameters(), *encoder.buffers()):
        if tensor.device.type not in ("cpu", "meta"):
            accelerators.setdefault(tensor.device.type, set()).add(tensor.device.index or 0)
    python, numpy = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for kind, devices in accelerators.items():
            stack.enter_context(torch.random.fork_rng(devices=sorted(devices), device_type=kind))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
