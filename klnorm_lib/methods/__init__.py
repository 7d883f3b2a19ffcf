"""Methods: frozen hyperparameters that change a user's model, one file each, listed in ``registry``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from klnorm_lib.methods.contract.method import Method, Report, apply, auxiliary_loss
from klnorm_lib.methods.loading import load
from klnorm_lib.methods.registry import PLAIN, REGISTRY, build, from_dict, names, recorded_fields, to_dict
from klnorm_lib.methods.together import Together

# Those of other packages are imported from there.
globals().update({cls.__name__: cls for cls in REGISTRY.own.values()})

if TYPE_CHECKING:

    def __getattr__(name: str) -> type[Method]: ...  # a type checker does not see them in the line above


__all__ = [
    "Method",
    "PLAIN",
    "REGISTRY",
    "Report",
    "Together",
    "apply",
    "auxiliary_loss",
    "build",
    "from_dict",
    "load",
    "names",
    "recorded_fields",
    "to_dict",
    *(cls.__name__ for cls in REGISTRY.own.values()),
]
