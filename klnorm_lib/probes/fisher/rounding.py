"""How far rounding moves the square of a gradient: what two right computations of it may differ by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.loop import Loop
from klnorm_lib.probes.fisher.losses import Loss

ALLOWED = 20.0  # times what a change in the last digit did


class Measured(Loop):
    """The loop, which can tell what differs from its sums by more than rounding."""

    def __init__(self, model: nn.Module, loss: Loss, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(model, loss, parameters)
        self._rows: list[Mapping[str, Tensor]] = []

    def wrong(self, found: Mapping[str, Tensor]) -> set[str]:
        """Of ``found``, sums of squares by parameter name, those that are others than the loop's.

        Each is compared with the parameter's own size, however small that is, and where that does not explain the
        difference, with what rounding does to the squares.
        """
        differing = {name for name, squares in found.items() if self._differs(name, squares)}
        noise = self._noise(differing) if differing else {}
        return {name for name in differing if self._differs(name, found[name], noise[name])}

    def _one(self, row: Mapping[str, Tensor]) -> Tensor:
        self._rows.append(row)
        return super()._one(row)

    def _differs(self, name: str, found: Tensor, noise: float = 0.0) -> bool:
        true = self.sums[name]
        size, underflow = size_of(true), torch.finfo(true.dtype).tiny * true.numel()
        if size > underflow and not found.any():
            return True
        allowed = tolerance(self.parameters) * size + ALLOWED * noise + underflow
        return not size_of(found - true) <= allowed  # so that what is not a number differs

    def _noise(self, names: set[str]) -> dict[str, float]:
        """How much the squares move when the last digit of every module's output is changed at random.

        A gradient that is zero but for rounding, as that of a key's bias, changes as a whole; one that is only small
        does not.
        """
        some = Loop(self.model, self.loss, {name: self.parameters[name] for name in names})
        noise = dict.fromkeys(names, 0.0)
        for row in self._rows:
            _, slopes = some.slopes(row)
            with last_digit_changed(self.model):
                _, others = some.slopes(row)
            for name in slopes.keys() & others.keys():
                noise[name] += size_of(slopes[name].square() - others[name].square())
        return noise


def size_of(squares: Tensor) -> float:
    """The sum of absolute values: squares of squares would be lost where gradients are small."""
    return float(squares.abs().sum())


def tolerance(parameters: Mapping[str, nn.Parameter]) -> float:
    """Relative difference that rounding explains: 1e-3 in single precision, 1e-5 in double.

    Not less in double, since many models have parts that compute in single precision whatever they are given.
    """
    eps = max(torch.finfo(p.dtype).eps for p in parameters.values())
    return 1e-5 if eps < 1e-10 else max(1e-3, 30 * eps)


@contextmanager
def last_digit_changed(model: nn.Module) -> Iterator[None]:
    """Outputs of modules without children are multiplied by one plus or minus the precision of their type."""
    generators: dict[torch.device, torch.Generator] = {}

    def change(module: nn.Module, args: tuple, out: Tensor) -> Tensor | None:
        if not isinstance(out, Tensor) or not out.is_floating_point():
            return None
        if out.device not in generators:
            generators[out.device] = torch.Generator(out.device).manual_seed(0)
        up = torch.randint(2, out.shape, generator=generators[out.device], device=out.device, dtype=out.dtype)
        eps = torch.finfo(out.dtype).eps
        return out * up.mul_(2 * eps).add_(1 - eps)

    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_hook(change) for module in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
