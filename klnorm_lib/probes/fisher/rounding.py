"""How far rounding moves the square of a gradient: what two right computations of it may differ by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.loop import Loop
from klnorm_lib.probes.fisher.losses import Loss

ALLOWED = 20.0  # times what a change in the last digit did


class Measured(Loop):
    """The loop, done twice: as it is, and with the last digit of every module's output changed at random.

    ``noise``: parameter name -> what that did to the squares, in absolute values, summed. A gradient that is zero but
    for rounding, as that of a key's bias, changes as a whole; one that is only small does not.
    """

    def __init__(self, model: nn.Module, loss: Loss, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(model, loss, parameters)
        self.noise: dict[str, float] = defaultdict(float)

    def differs(self, name: str, found: Tensor) -> bool:
        """Whether ``found``, the sum of the squares of one parameter, is another than that of the loop.

        Compared with the parameter's own size, however small that is, and with what rounding does to it.
        """
        true = self.sums[name]
        size, underflow = size_of(true), torch.finfo(true.dtype).tiny * true.numel()
        if size > underflow and not found.any():
            return True
        allowed = tolerance(self.parameters) * size + ALLOWED * self.noise[name] + underflow
        return not size_of(found - true) <= allowed  # so that what is not a number differs

    def _one(self, row: Mapping[str, Tensor]) -> Tensor:
        value, slopes = self._slopes(row)
        with last_digit_changed(self.model):
            _, others = self._slopes(row)
        for name, slope in slopes.items():
            self.used.add(name)
            square = slope.square_()
            self.sums[name].add_(square)
            other = others.pop(name, None)
            if other is not None:
                self.noise[name] += size_of(square.sub_(other.square_()))
        return value


def size_of(squares: Tensor) -> float:
    """The sum of absolute values: squares of squares would be lost where gradients are small."""
    return float(squares.abs().sum())


def tolerance(parameters: Mapping[str, nn.Parameter]) -> float:
    """Relative difference that rounding explains, 1e-3 in single precision."""
    return max(1e-3, 30 * max(torch.finfo(p.dtype).eps for p in parameters.values()))


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
