"""The diagonal Fisher information as a dict that knows its model, as long as there is one."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

from torch import Tensor, nn


class FisherTensors(dict):
    """Parameter name -> tensor. ``model()``: the model they are of, None once it is gone; copies are plain dicts."""

    def __init__(self, tensors: Mapping[str, Tensor], model: nn.Module) -> None:
        super().__init__(tensors)
        self.model = weakref.ref(model)

    def __reduce__(self):
        return dict, (dict(self),)
