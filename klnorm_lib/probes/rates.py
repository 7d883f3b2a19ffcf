"""Which dropout rate really runs at every site: intercepted in a forward pass, and checked by what it did.

Reading a rate off a module trusts that the code uses it; attention may run with a copy frozen at construction.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from klnorm_lib.probes.inputs import dummy_inputs
from klnorm_lib.probes.operations import WATCHED, Seen, count_zeros
from klnorm_lib.probes.untouched import training_mode
from klnorm_lib.sites import Rate, Site, dropout_sites, encoder_of
from klnorm_lib.sites.added import added_dropouts
from klnorm_lib.sites.dropouts import is_dropout, known_sites
from klnorm_lib.sites.ignored import notes_on
from klnorm_lib.sites.walk import places

R = TypeVar("R", bound="Recorder")


@dataclass(frozen=True)
class Reading:
    """One dropout operation as it ran: its site, whether it is the site's main one, its rate, where, what was seen.

    ``seen``: the zeros that it made, or for Gaussian noise the moments of its factors; ``seen.noise`` names the kind.
    """

    site: str
    main: bool
    p: float
    where: str
    seen: Seen


def effective_rates(model: nn.Module) -> dict[str, float]:
    """Measured dropout rate of every site in training mode: site name -> probability.

    One forward pass of the encoder alone (a head with batch statistics sees nothing), in training mode whatever the
    model's mode is, layer-drop and SpecAugment off. The rate is the one handed to the operation (dropout, scaled
    dot-product attention, multi-head attention); the share of zeros it makes must agree within a binomial bound, or,
    if it is Gaussian, the mean and the variance of its factors.
    A site's rate is that of its main operation. The model and all generators are left as they were. Warns of a rate in
    the config that nothing in the model reads (``classifier_dropout`` in a dozen classes of transformers), and of a
    site that runs at another rate than is written down.

    Raises ``ValueError`` for an encoder without recognised sites; ``RuntimeError``, naming the place, when a site was
    not seen to run, runs at two rates, disagrees with its zeros, or when dropout runs outside every site.
    """
    found, sites = readings(model), dropout_sites(model)
    rates = {name: next(r.p for r in found if r.main and r.site == name) for name in sites}
    for name, p in rates.items():
        written = sites[name].get()
        if not math.isclose(p, written, abs_tol=1e-9):
            warnings.warn(f"{name}: {written:g} is written down, but {p:g} runs; the code ignores it", stacklevel=2)
    for note in notes_on(model):
        warnings.warn(note, stacklevel=2)
    return rates


def readings(model: nn.Module) -> list[Reading]:
    """Every dropout operation of the encoder's sites, companions included; see :func:`effective_rates`."""
    dropout_sites(model)  # raises where there are none
    return recorded(model, Recorder).readings


def recorded(model: nn.Module, recorder: Callable[[nn.Module, dict[str, Site]], R]) -> R:
    """The ``recorder`` of the encoder and its sites after one training pass; raises as :func:`effective_rates`."""
    encoder = encoder_of(model)
    sites = known_sites(model)
    recorder = recorder(encoder, sites)
    with training_mode(encoder):
        inputs = dummy_inputs(encoder)
        with recorder.following(), recorder:
            encoder(**inputs)
    for name in sites:
        seen = {r.p for r in recorder.readings if r.main and r.site == name}
        if not seen:
            raise RuntimeError(
                f"no dropout was seen at {name}: its code uses an operation that cannot be measured; "
                'load the model with attn_implementation="sdpa" or "eager"'
            )
        if len(seen) > 1:
            raise RuntimeError(f"{name} runs at more than one rate: {', '.join(f'{p:g}' for p in sorted(seen))}")
    return recorder


class Recorder(TorchFunctionMode):
    """Intercepts dropout operations and attributes each to the site whose module is running."""

    def __init__(self, encoder: nn.Module, sites: dict[str, Site]) -> None:
        super().__init__()
        self.readings: list[Reading] = []
        self._paths = {module: path for path, module in encoder.named_modules()}
        self._running: list[nn.Module] = []
        # A layer may hold several numbers that it hands to functional dropout: which of them ran is told by the rate.
        self._sites_of: dict[nn.Module, list[tuple[str, bool, Rate]]] = {}
        for name, site in sites.items():
            for module in dict.fromkeys(site.runs_in):
                self._sites_of.setdefault(module, []).append((name, True, site.main))
            for rate in site.companions:
                self._sites_of.setdefault(rate.module, []).append((name, False, rate))
        # Adapters of peft, layers of ours and the pooler may drop as they like.
        own = [p for p in places(encoder) if "base_layer" not in p.module._modules]
        self._own = {p.module for p in own if not f"{p.role}.".startswith("pooler.")}
        self._own |= {added for _, added in added_dropouts(encoder)}

    @contextmanager
    def following(self) -> Iterator[None]:
        """Keep track of which modules are running."""
        handles = []
        for module in self._paths:
            handles.append(module.register_forward_pre_hook(lambda m, _: self._running.append(m)))
            if is_dropout(module) and not isinstance(module, nn.modules.dropout._DropoutNd):
                handles += self._watch_whole(module)
            handles.append(module.register_forward_hook(lambda *_: self._pop()))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _watch_whole(self, module: nn.Module) -> list[RemovableHandle]:
        """Hooks that look at what a dropout of another class (SEW-D's) did, unless an operation of it was seen."""
        before: list[int] = []

        def left(_, args: tuple, output: Tensor) -> None:
            if before.pop() == len(self.readings):
                p = module.p if hasattr(module, "p") else module.drop_prob
                self._record(float(p) if module.training else 0.0, count_zeros(args[0], output))

        entered = module.register_forward_pre_hook(lambda *_: before.append(len(self.readings)))
        return [entered, module.register_forward_hook(left)]

    def _pop(self) -> None:
        self._running.pop()

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # In here the mode is off, so that an operation that calls another one is counted once.
        look = WATCHED.get(func)
        if look is None:
            return func(*args, **kwargs)
        p, seen, result = look(func, args, kwargs)
        self._record(p, seen)
        return result

    def _record(self, p: float, seen: Seen) -> None:
        innermost = self._running[-1]
        if innermost not in self._own:
            return
        where = self._paths[innermost] or "the encoder"
        sites = next(filter(None, map(self._sites_at, reversed(self._running))), [])
        if len(sites) > 1:
            sites = [site for site in sites if site[2].get() == p]
        if not sites:
            if p > 0:
                raise RuntimeError(
                    f"dropout of rate {p:g} runs in {where}, which is no recognised site; set it to 0 in the "
                    "model's config"
                )
            return
        if not seen.plausible(p):
            raise RuntimeError(
                f"{sites[0][0]}: {where} was called with dropout {p:g}, but {seen}; "
                "the operation does not do what it was set to"
            )
        self.readings += [Reading(name, main, p, where, seen) for name, main, _ in sites]

    def _sites_at(self, module: nn.Module) -> list[tuple[str, bool, Rate]]:
        """Sites that an operation inside ``module`` may be of: those of a number that its own forward reads only
        while no other module runs inside it."""
        sites = self._sites_of.get(module, [])
        if module is self._running[-1]:
            return sites
        return [s for s in sites if s[2].module is not module or s[0].endswith("attention_probs")]
