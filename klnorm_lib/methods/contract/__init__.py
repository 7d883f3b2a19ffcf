"""The contract between a method and a user's model: apply, penalise once, save, load."""

from __future__ import annotations

from klnorm_lib.methods.contract.method import (
    PROPERTIES,
    Method,
    Report,
    apply,
    apply_saved,
    auxiliary_loss,
    whole_numbers,
)
from klnorm_lib.methods.contract.model_class import CONFIG_KEY, FORMAT, rebuild, save_methods_with
from klnorm_lib.methods.contract.model_class import regularised as _regularised
from klnorm_lib.methods.contract.model_class import saving_methods as _saving_methods
from klnorm_lib.methods.contract.undo import add_module, replace_module, undo_later
from klnorm_lib.methods.penalty import penalty_layers as _penalty_layers

# Models pickled when the contract was one module name these, and the functions imported above with an underscore.
__all__ = [
    "CONFIG_KEY", "FORMAT", "PROPERTIES", "Method", "Report", "add_module", "apply", "apply_saved", "auxiliary_loss",
    "rebuild", "replace_module", "save_methods_with", "undo_later", "whole_numbers", "_penalty_layers", "_regularised",
    "_saving_methods",
]  # fmt: skip
