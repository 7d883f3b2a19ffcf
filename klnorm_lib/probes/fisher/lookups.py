"""Every look-up in an embedding table, whatever class of module makes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_SIGNATURE = inspect.signature(F.embedding)


class Lookups(TorchFunctionMode):
    """Calls ``heard(weight, ids, padding_idx, out) -> out`` for each ``F.embedding``; subclasses may scale or shift.

    With ``expand``, ids (1, T) are looked up as (``rows``, T). Tables that torch renormalises, or whose gradients it
    scales, are left alone.
    """

    def __init__(self, rows: int, expand: bool, heard: Callable[[Tensor, Tensor, int | None, Tensor], Tensor]) -> None:
        super().__init__()
        self._rows, self._expand, self._heard = rows, expand, heard

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not F.embedding:
            return func(*args, **kwargs)
        given = _SIGNATURE.bind(*args, **kwargs)
        given.apply_defaults()
        call = given.arguments
        if call["max_norm"] is not None or call["scale_grad_by_freq"]:
            return func(*args, **kwargs)
        ids, weight, padding = call["input"], call["weight"], call["padding_idx"]
        if self._expand and ids.dim() > 1 and len(ids) == 1 < self._rows:
            call["input"] = ids = ids.expand(self._rows, *ids.shape[1:])
        padding = None if padding is None else padding % len(weight)
        return self._heard(weight, ids, padding, func(*given.args, **given.kwargs))
