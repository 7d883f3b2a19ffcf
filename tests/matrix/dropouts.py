"""Which rate every random mask of a training forward was drawn with: seen where torch draws, not where code asks.

from tests.matrix import architectures, dropouts

model = architectures.build(name)
rates = dropouts.ask(model)                                             # a rate of its own for every site
dropouts.measured_rates(model, architectures.batch(name, model))        # the same, or a finding
dropouts.guided(name)                                                   # all of it, and from the Fisher information
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from scipy.stats import binom
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from klnorm_lib import apply
from klnorm_lib.methods import GuidedDropout
from klnorm_lib.probes.untouched import training_mode
from klnorm_lib.sites import dropout_sites, encoder_of
from tests.matrix import architectures

ROWS = 8
IMPLAUSIBLE = 1e-12
OUTSIDE = "outside every site: "  # begins the name under which a draw that no site accounts for is returned


@dataclass(frozen=True)
class Draw:
    """One mask: the modules that were running, the outermost first, the share of zeros it was to have, and its size."""

    running: tuple[nn.Module, ...]
    p: float
    zeros: int
    count: int


class _Draws(TorchDispatchMode):
    """Every Bernoulli mask that reaches torch's kernels; dropout and attention on a CPU come down to these."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Draw] = []
        self.running: list[nn.Module] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.bernoulli_.float:
            self._add(args[1] if len(args) > 1 else (kwargs or {}).get("p", 0.5), result)
        elif func is torch.ops.aten.native_dropout.default and args[2] is not False:
            self._add(1.0 - args[1], result[1])
        return result

    def _add(self, kept: float, mask: torch.Tensor) -> None:
        draw = Draw(tuple(self.running), 1.0 - kept, int((mask == 0).sum()), mask.numel())
        self.found.append(draw)


@contextmanager
def _following(model: nn.Module, running: list[nn.Module]):
    def left(*_) -> None:
        running.pop()

    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(lambda m, _: running.append(m)).remove)
            stack.callback(module.register_forward_hook(left, always_call=True).remove)
        yield


def draws(model: nn.Module, batch: dict[str, torch.Tensor]) -> list[Draw]:
    """All masks of one training forward; layer-drop and SpecAugment are off, and the model is left as it was."""
    seen = _Draws()
    with training_mode(model), _following(model, seen.running), seen:
        model(**batch)
    return seen.found


def measured_rates(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Site -> the rate of the masks drawn there; a draw of no site, or a second rate, stands under a name of its own.

    A mask belongs to the innermost running module that a site reads its rate from. Where a module has rates of
    several sites, it belongs to the one whose rate it has; so ask for different ones. A site without a mask is left
    out. Masks of one value an example (stochastic depth) and those of head and pooler are no sites'.
    Raises ``AssertionError`` for a mask whose zeros contradict the rate that it was drawn with.
    """
    encoder, sites = encoder_of(model), dropout_sites(model)
    paths = {module: path for path, module in encoder.named_modules()}
    readers: dict[nn.Module, dict[str, float]] = {}
    for name, site in sites.items():
        for module in (*site.runs_in, *(rate.module for rate in site.rates)):
            readers.setdefault(module, {})[name] = site.get()
    found: dict[str, float] = {}
    for draw in draws(model, batch):
        tail = min(binom.cdf(draw.zeros, draw.count, draw.p), binom.sf(draw.zeros - 1, draw.count, draw.p))
        assert 2 * tail > IMPLAUSIBLE, f"{draw.zeros} zeros of {draw.count} at rate {draw.p:g}"
        inside = [paths[module] for module in draw.running if module in paths]
        if not inside or inside[-1].startswith("pooler") or draw.count <= len(next(iter(batch.values()))):
            continue
        p = round(draw.p, 6)
        candidates = next((readers[m] for m in reversed(draw.running) if m in readers), {})
        exact = [name for name, rate in candidates.items() if abs(rate - p) < 1e-5]
        name = exact[0] if exact else next(iter(candidates), f"{OUTSIDE}{inside[-1] or 'the encoder'}")
        if found.setdefault(name, p) != p:
            found[f"{name} again at {p:g}"] = p
    return found


def ask(model: nn.Module) -> dict[str, float]:
    """Give every site a rate of its own by ``GuidedDropout``, and return them."""
    wanted = distinct(dropout_sites(model))
    apply(model, GuidedDropout(rates=wanted))
    return wanted


def distinct(sites: Iterable[str]) -> dict[str, float]:
    """Site -> a rate between 0.05 and 0.65 that no other one has."""
    names = list(sites)
    return {name: round(0.05 + 0.6 * k / len(names), 4) for k, name in enumerate(names)}


def guided(name: str) -> int:
    """Check guided dropout on this architecture and return the number of its sites.

    Raises what the library raises where it refuses, and ``AssertionError`` where a site runs at another rate than
    was asked for.
    """
    model = architectures.build(name)
    wanted = ask(model)
    seen = measured_rates(model, architectures.batch(name, model, rows=ROWS))
    assert seen == wanted, {key: (wanted.get(key), seen.get(key)) for key in wanted | seen if
                            wanted.get(key) != seen.get(key)}  # fmt: skip
    return len(wanted)
