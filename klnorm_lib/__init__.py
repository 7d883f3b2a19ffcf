"""Fine-tuning with few labels: KL-Norm, guided dropout and their controls."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOME = {
    "klnorm_lib.methods": (
        "apply", "auxiliary_loss", "load", "Report", "Method", "KLNorm", "VIB", "NormHead", "MLPHead", "Dropout",
        "GuidedDropout", "GaussianDropout", "Mixout", "RDrop", "L2SP", "EWC",
        "ChildTuning",
    ),
    "klnorm_lib.probes": ("effective_rates",),
}  # fmt: skip
_MODULES = (
    "encoders", "figures", "functional", "methods", "pages", "pretraining", "probes", "sites", "study", "sweep",
    "tasks",
)  # fmt: skip
__all__ = sorted([*_MODULES, *(name for names in _HOME.values() for name in names)])


def __getattr__(name: str):
    # Resolved on first use, so that importing the closed-form maths does not import transformers.
    if name in _MODULES:
        return importlib.import_module(f"klnorm_lib.{name}")
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"klnorm_lib has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
