"""Operations that multiply by random noise: which rate they were called with, and what they then did.

Each entry of ``WATCHED`` runs one operation and looks at it: ``(rate, what was seen, its result)``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import binom
from torch import Tensor
from torch.nn import functional as F

from klnorm_lib.functional.noise import gaussian_dropout

# Two-sided probability below which a zero count contradicts its rate (6.5 standard errors): hundreds of operations
# are checked a pass, and none of them may raise a false alarm.
IMPLAUSIBLE = 1e-10
STANDARD_ERRORS = 6.5  # the same for moments
ENOUGH = 256  # fewer elements than this say little about a rate


@dataclass(frozen=True)
class Zeros:
    """Of ``count`` elements that were not zero, ``zeros`` are zero afterwards: Bernoulli noise."""

    zeros: int
    count: int
    noise = "bernoulli"

    def plausible(self, p: float) -> bool:
        """Whether a rate of ``p`` could have made them."""
        return _plausible(self.zeros, self.count, p)

    def __str__(self) -> str:
        return f"{self.zeros} of {self.count} elements were zeroed"


@dataclass(frozen=True)
class Moments:
    """Mean and variance of the factors by which ``count`` elements were multiplied: Gaussian noise."""

    mean: float
    variance: float
    count: int
    rounding: float
    noise = "gaussian"

    def plausible(self, p: float) -> bool:
        """Whether mean 1 and variance p/(1-p) could have given them."""
        wanted = p / (1 - p)
        mean = STANDARD_ERRORS * (wanted / self.count) ** 0.5
        variance = STANDARD_ERRORS * wanted * (2 / self.count) ** 0.5
        slack = 4 * self.rounding
        return abs(self.mean - 1) <= mean + slack and abs(self.variance - wanted) <= variance + slack

    def __str__(self) -> str:
        return f"its {self.count} factors have mean {self.mean:.4g} and variance {self.variance:.4g}"


Seen = Zeros | Moments


def _plausible(zeros: int, trials: int, p: float) -> bool:
    if p in (0.0, 1.0):
        return zeros == round(p * trials)
    tail = min(binom.cdf(zeros, trials, p), binom.sf(zeros - 1, trials, p))
    return bool(2 * tail > IMPLAUSIBLE)


def count_zeros(before: Tensor, after: Tensor) -> Zeros:
    """How many of the elements that were not zero are zero afterwards, and how many those were."""
    alive = before.ne(0) & before.isfinite()
    return Zeros(int((after.eq(0) & alive).sum()), int(alive.sum()))


def _in_dropout(func: Callable, args: tuple, kwargs: dict) -> tuple[float, Seen, Tensor]:
    given = inspect.signature(F.dropout).bind(
        *args, **{"training" if k == "train" else k: v for k, v in kwargs.items()}
    )
    given.apply_defaults()
    x, p, training = given.arguments["input"], given.arguments["p"], given.arguments["training"]
    before = x.clone()  # the operation may work in place
    result = func(*args, **kwargs)
    seen = count_zeros(before, result)
    if seen.count < min(ENOUGH, x.numel()):  # e.g. behind a rate of 1: too little is left to count on
        ones = torch.ones(max(ENOUGH, x.numel()), dtype=x.dtype, device=x.device)
        seen = count_zeros(ones, F.dropout(ones, p, training))
    return (float(p) if training else 0.0), seen, result


def _in_gaussian(func: Callable, args: tuple, kwargs: dict) -> tuple[float, Seen, Tensor]:
    given = inspect.signature(gaussian_dropout).bind(*args, **kwargs).arguments
    x, p = given["x"], given["p"]
    result = func(x, p)
    inside, outside = x.double(), result.double()
    info = torch.finfo(x.dtype)
    alive = x.isfinite() & (x.abs() > info.tiny / info.eps)  # below that a product loses its digits
    if int(alive.sum()) < min(ENOUGH, x.numel()):
        inside = torch.ones(max(ENOUGH, x.numel()), dtype=x.dtype, device=x.device)
        outside, alive = gaussian_dropout(inside, p).double(), inside.bool()
    factors = outside[alive] / inside[alive]
    variance = float((factors - 1).square().mean())  # about the mean that it should have
    return float(p), Moments(float(factors.mean()), variance, factors.numel(), info.eps), result


def _sdpa(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Signature of ``F.scaled_dot_product_attention``, which as a builtin has none to inspect."""


def _in_sdpa(func: Callable, args: tuple, kwargs: dict) -> tuple[float, Seen, Tensor]:
    result = func(*args, **kwargs)
    given = inspect.signature(_sdpa).bind(*args, **kwargs).arguments
    key = given["key"]
    # With the identity for values the output is the (dropped) attention weights themselves.
    identity = torch.eye(key.shape[-2], dtype=key.dtype, device=key.device).expand(*key.shape[:-1], key.shape[-2])
    kept = func(**given | {"value": identity, "dropout_p": 0.0})
    dropped = func(**given | {"value": identity})
    return float(given.get("dropout_p", 0.0)), count_zeros(kept, dropped), result


def _in_multi_head(func: Callable, args: tuple, kwargs: dict) -> tuple[float, Seen, tuple]:
    result = func(*args, **kwargs)
    given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
    given.apply_defaults()
    shown = given.arguments | {"need_weights": True, "average_attn_weights": False}
    _, kept = func(**shown | {"training": False})
    _, dropped = func(**shown)
    p = given.arguments["dropout_p"] if given.arguments["training"] else 0.0
    return float(p), count_zeros(kept, dropped), result


WATCHED = {
    F.dropout: _in_dropout,
    torch.dropout: _in_dropout,
    gaussian_dropout: _in_gaussian,
    F.scaled_dot_product_attention: _in_sdpa,
    F.multi_head_attention_forward: _in_multi_head,
}
