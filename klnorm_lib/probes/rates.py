"""Which dropout rate really runs at every site: intercepted in a forward pass, and checked by counting zeros.

Reading a rate off a module trusts that the code uses it; attention may run with a copy frozen at construction.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from klnorm_lib.methods.sites import Site, dropout_sites, encoder_of
from klnorm_lib.methods.walk import places
from klnorm_lib.probes.inputs import dummy_inputs
from klnorm_lib.probes.untouched import training_mode

# Two-sided probability below which a zero count contradicts its rate (6.5 standard errors): hundreds of operations
# are checked a pass, and none of them may raise a false alarm.
IMPLAUSIBLE = 1e-10
ENOUGH = 256  # fewer elements than this say little about a rate


@dataclass(frozen=True)
class Reading:
    """One dropout operation as it ran: its site, whether it is the site's main one, its rate, and where."""

    site: str
    main: bool
    p: float
    where: str


def effective_rates(model: nn.Module) -> dict[str, float]:
    """Measured dropout rate of every site in training mode: site name -> probability.

    One forward pass of the encoder alone (a head with batch statistics sees nothing), in training mode whatever the
    model's mode is, layer-drop and SpecAugment off. The rate is the one handed to the operation (dropout, scaled
    dot-product attention, multi-head attention); the share of zeros it makes must agree within a binomial bound.
    A site's rate is that of its main operation. The model and all generators are left as they were.

    Raises ``ValueError`` for an encoder without known sites; ``RuntimeError``, naming the place, when a site was not
    seen to run, runs at two rates, disagrees with its zeros, or when dropout runs outside every site.
    """
    found = readings(model)
    return {name: next(r.p for r in found if r.main and r.site == name) for name in dropout_sites(model)}


def readings(model: nn.Module) -> list[Reading]:
    """Every dropout operation of the encoder's sites, companions included; see :func:`effective_rates`."""
    encoder = encoder_of(model)
    sites = dropout_sites(model)
    recorder = _Recorder(encoder, sites)
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
    return recorder.readings


class _Recorder(TorchFunctionMode):
    """Intercepts dropout operations and attributes each to the site whose module is running."""

    def __init__(self, encoder: nn.Module, sites: dict[str, Site]) -> None:
        super().__init__()
        self.readings: list[Reading] = []
        self._paths = {module: path for path, module in encoder.named_modules()}
        self._running: list[nn.Module] = []
        self._site_of = {module: (name, True) for name, site in sites.items() for module in site.runs_in}
        for name, site in sites.items():
            self._site_of |= {rate.module: (name, False) for rate in site.companions}
        # Adapters of peft, layers of ours and the pooler may drop as they like.
        own = [p for p in places(encoder) if "base_layer" not in p.module._modules]
        self._own = {p.module for p in own if not f"{p.role}.".startswith("pooler.")}

    @contextmanager
    def following(self) -> Iterator[None]:
        """Keep track of which modules are running."""
        handles = []
        for module in self._paths:
            handles.append(module.register_forward_pre_hook(lambda m, _: self._running.append(m)))
            handles.append(module.register_forward_hook(lambda *_: self._pop()))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _pop(self) -> None:
        self._running.pop()

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # In here the mode is off, so that an operation that calls another one is counted once.
        counter = _COUNTERS.get(func)
        if counter is None:
            return func(*args, **kwargs)
        p, zeros, trials, result = counter(func, args, kwargs)
        self._record(p, zeros, trials)
        return result

    def _record(self, p: float, zeros: int, trials: int) -> None:
        innermost = self._running[-1]
        if innermost not in self._own:
            return
        where = self._paths[innermost] or "the encoder"
        known = (self._site_of[m] for m in reversed(self._running) if m in self._site_of)
        name, main = next(known, (None, False))
        if name is None:
            if p > 0:
                raise RuntimeError(
                    f"dropout of rate {p:g} runs in {where}, which is no known site; set it to 0 in the model's config"
                )
            return
        if not _plausible(zeros, trials, p):
            raise RuntimeError(
                f"{name}: {where} was called with dropout {p:g}, but {zeros} of {trials} elements were zeroed; "
                "the operation does not do what it was asked to"
            )
        self.readings.append(Reading(name, main, p, where))


def _plausible(zeros: int, trials: int, p: float) -> bool:
    if p in (0.0, 1.0):
        return zeros == round(p * trials)
    tail = min(binom.cdf(zeros, trials, p), binom.sf(zeros - 1, trials, p))
    return bool(2 * tail > IMPLAUSIBLE)


def _count(before: Tensor, after: Tensor) -> tuple[int, int]:
    """How many of the elements that were not zero are zero afterwards, and how many those were."""
    alive = before.ne(0) & before.isfinite()
    return int((after.eq(0) & alive).sum()), int(alive.sum())


def _in_dropout(func: Callable, args: tuple, kwargs: dict) -> tuple[float, int, int, Tensor]:
    given = inspect.signature(F.dropout).bind(
        *args, **{"training" if k == "train" else k: v for k, v in kwargs.items()}
    )
    given.apply_defaults()
    x, p, training = given.arguments["input"], given.arguments["p"], given.arguments["training"]
    before = x.clone()  # the operation may work in place
    result = func(*args, **kwargs)
    zeros, trials = _count(before, result)
    if trials < min(ENOUGH, x.numel()):  # e.g. behind a rate of 1: too little is left to count on
        ones = torch.ones(max(ENOUGH, x.numel()), dtype=x.dtype, device=x.device)
        zeros, trials = _count(ones, F.dropout(ones, p, training))
    return (float(p) if training else 0.0), zeros, trials, result


def _sdpa(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Signature of ``F.scaled_dot_product_attention``, which as a builtin has none to inspect."""


def _in_sdpa(func: Callable, args: tuple, kwargs: dict) -> tuple[float, int, int, Tensor]:
    result = func(*args, **kwargs)
    given = inspect.signature(_sdpa).bind(*args, **kwargs).arguments
    key = given["key"]
    # With the identity for values the output is the (dropped) attention weights themselves.
    identity = torch.eye(key.shape[-2], dtype=key.dtype, device=key.device).expand(*key.shape[:-1], key.shape[-2])
    kept = func(**given | {"value": identity, "dropout_p": 0.0})
    dropped = func(**given | {"value": identity})
    return float(given.get("dropout_p", 0.0)), *_count(kept, dropped), result


def _in_multi_head(func: Callable, args: tuple, kwargs: dict) -> tuple[float, int, int, tuple]:
    result = func(*args, **kwargs)
    given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
    given.apply_defaults()
    shown = given.arguments | {"need_weights": True, "average_attn_weights": False}
    _, kept = func(**shown | {"training": False})
    _, dropped = func(**shown)
    p = given.arguments["dropout_p"] if given.arguments["training"] else 0.0
    return float(p), *_count(kept, dropped), result


_COUNTERS = {
    F.dropout: _in_dropout,
    torch.dropout: _in_dropout,
    F.scaled_dot_product_attention: _in_sdpa,
    F.multi_head_attention_forward: _in_multi_head,
}
