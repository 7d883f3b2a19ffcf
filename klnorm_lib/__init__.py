"""Fine-tuning with few labels: KL-Norm, guided dropout and their controls."""

from __future__ import annotations

import importlib
import pkgutil

from klnorm_lib import doors

__version__ = "0.1.0"

_PACKAGES = tuple(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def __getattr__(name: str):
    # Resolved on first use, so that importing the closed-form maths does not import transformers.
    if name == "__all__":
        return sorted([*_PACKAGES, *_exports()])
    if name in _PACKAGES:
        return importlib.import_module(f"klnorm_lib.{name}")
    if name.startswith("_"):  # what Python looks for; the list of what there is would import torch
        raise AttributeError(f"klnorm_lib has no {name!r}")
    exports = _exports()
    if name in exports:
        return getattr(importlib.import_module(exports[name]), name)
    raise AttributeError(f"klnorm_lib has no {name!r}; it has {', '.join(__dir__())}")


def _exports() -> dict[str, str]:
    """Name -> the module that it comes from: each method, and what is done with one."""
    methods = importlib.import_module("klnorm_lib.methods")
    classes = [cls.__name__ for cls in methods.REGISTRY.own.values()]
    own = ("apply", "auxiliary_loss", "load", "Report", "Method", *classes)
    return {**dict.fromkeys(own, "klnorm_lib.methods"), "effective_rates": "klnorm_lib.probes"}


def __dir__() -> list[str]:
    return sorted([*_PACKAGES, *_exports()])


doors.register()
