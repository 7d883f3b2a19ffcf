r"""Gaussian multiplicative noise, and the places of a transformer where it takes the place of dropout.

A dropout site multiplies by noise of mean 1 and variance :math:`p/(1-p)`. Here the noise is Gaussian with these very
moments. There are two kinds of place: a dropout module that is called, and attention whose weights never leave the
attention function (transformers' ``attention_interface``), for which a function of our own is registered.
"""

from __future__ import annotations

import functools
import math
import sys
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.functional.noise import gaussian_dropout
from klnorm_lib.methods.contract.model_class import rebuild

ATTENTION = "klnorm_gaussian"
_NOT_UNDERSTOOD = ("softcap", "s_aux", "position_bias")
_UNDERSTOOD = ("eager", "sdpa")  # whose masks `gaussian_attention` can read


@functools.cache
def noisy(base: type[nn.Module]) -> type[nn.Module]:
    """The class of a dropout module whose noise is Gaussian; its rate stays where ``base`` keeps it."""

    class Gaussian(base):
        def forward(self, x: Tensor) -> Tensor:
            return gaussian_dropout(x, self.p if hasattr(self, "p") else self.drop_prob) if self.training else x

        def __reduce_ex__(self, protocol):
            return rebuild, (base, noisy), self.__dict__

    Gaussian.__name__ = Gaussian.__qualname__ = f"Gaussian{base.__name__}"
    return Gaussian


class GaussianConfig:
    """The config of an attention module, as it is, but for the attention function that it names."""

    _attn_implementation = ATTENTION

    def __init__(self, config: Any) -> None:
        self.own = config

    def __setstate__(self, state: dict) -> None:
        _register()  # unpickled in a process where no method was applied
        self.__dict__.update(state)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "own":  # copying and pickling look these up before there is a config
            raise AttributeError(name)
        return getattr(self.own, name)


def gaussian_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    """Attention with Gaussian noise on its weights; without dropout (in evaluation) the model's own function.

    Shapes: query (B, H, T, d), key and value (B, H or fewer, S, d) -> (B, T, H, d) and the weights (B, H, T, S). Heads
    that share keys are those of grouped-query attention; without a mask a decoder's attention is causal, as in
    transformers' own sdpa. Raises ``ValueError`` where the model asks for more than a softmax (capped scores, sinks).
    """
    if dropout == 0.0:
        own = _own_function(module)
        return own(module, query, key, value, attention_mask, scaling=scaling, dropout=0.0, **kwargs)
    more = [name for name in _NOT_UNDERSTOOD if kwargs.get(name) is not None]
    if more:
        raise ValueError(
            f"the attention of {type(module).__name__} has {', '.join(more)}, which Gaussian dropout does not know; "
            "give rates for the other sites: GaussianDropout(rates={...})"
        )
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    is_causal = kwargs.get("is_causal")
    if attention_mask is None and (getattr(module, "is_causal", False) if is_causal is None else is_causal):
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        keep = attention_mask.dtype == torch.bool
        scores = scores.masked_fill(~attention_mask, -math.inf) if keep else scores + attention_mask
    weights = gaussian_dropout(scores.softmax(-1), dropout)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _own_function(module: nn.Module):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    eager = sys.modules[type(module).__module__].eager_attention_forward
    return ALL_ATTENTION_FUNCTIONS.get_interface(module.config.own._attn_implementation, eager)


def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, gaussian_attention)


def redirected(module: nn.Module) -> GaussianConfig | None:
    """The config with which ``module`` calls :func:`gaussian_attention`; None if it is no module that could.

    Raises ``ValueError`` for an attention implementation whose masks are not understood.
    """
    if not hasattr(sys.modules[type(module).__module__], "eager_attention_forward") or not hasattr(module, "config"):
        return None
    if isinstance(module.config, GaussianConfig):
        return module.config
    if module.config._attn_implementation not in _UNDERSTOOD:
        raise ValueError(
            f"attn_implementation={module.config._attn_implementation!r} hides its weights from Gaussian dropout; "
            f"load the model with one of {', '.join(_UNDERSTOOD)}"
        )
    _register()
    return GaussianConfig(module.config)
