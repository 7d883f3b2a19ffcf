"""Methods that look at the training rows before they are applied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


class Batches:
    """Training rows, collated, each once, in their order, on ``device``; made when somebody asks for them."""

    def __init__(self, rows: Any, collator: Any, size: int, device: str) -> None:
        self._rows, self._collator, self._size, self.device = rows, collator, size, device

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self._rows), self._size):
            part = [self._rows[i] for i in range(start, min(start + self._size, len(self._rows)))]
            yield {name: value.to(self.device) for name, value in self._collator(part).items()}


def prepare(methods: Sequence[Any], model: Any, batches: Batches) -> list[Any]:
    """Each of ``methods`` once it has seen ``batches``; random numbers, flags and gradients stay as they were."""
    from klnorm_lib.methods import Method
    from klnorm_lib.probes.untouched import generators_kept

    prepared = []
    for method in methods:
        if type(method).prepare is Method.prepare:
            prepared.append(method)
            continue
        home = next(model.parameters()).device
        flags = [(module, module.training) for module in model.modules()]
        trains = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        try:
            with generators_kept(model):
                model.to(batches.device).eval()
                prepared.append(method.prepare(model, batches))
        finally:
            model.to(home).zero_grad(set_to_none=True)
            for module, training in flags:
                module.training = training
            for parameter, flag in trains:
                parameter.requires_grad_(flag)
    return prepared
