r"""Gaussian dropout: in training, activations are multiplied by Gaussian noise of dropout's mean and variance.

Srivastava et al. 2014, section 10 ("multiplicative Gaussian noise"); Wang and Manning 2013. Dropout multiplies by
:math:`m/(1-p)`, :math:`m \sim \mathrm{Bernoulli}(1-p)`, which has mean 1 and variance :math:`p/(1-p)`. With the same
moments

.. math:: y = a\left(1 + \sqrt{\tfrac{p}{1-p}}\;\epsilon\right), \qquad \epsilon \sim N(0, 1)

and y = a in evaluation. What is lost against dropout is the zeros; the second-order effect on the loss is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.undo import Undo
from klnorm_lib.methods.dropout import DEFAULT_P, Dropout
from klnorm_lib.methods.gaussian_noise import noisy, redirected
from klnorm_lib.sites import Site


@dataclass(frozen=True)
class GaussianDropout(Dropout):
    """Gaussian instead of Bernoulli noise: ``GaussianDropout(p=0.1)`` at every site, or ``rates={site: p}`` at some.

    ``p`` and ``rates`` are those of :class:`Dropout`, below 1; the noise has variance p/(1-p). Sites that are not
    named keep their own dropout. Attention weights need code that hands them out: eager and sdpa attention of the
    BERT and wav2vec 2.0 families, DeBERTa-v2 and MPNet. While training, attention then runs without the fused kernel.
    The noise is measured when the method is applied, and seen by ``effective_rates`` (which reports p).

    Raises what :class:`Dropout` raises, and ``ValueError`` for a rate of 1 or an encoder whose attention cannot be
    reached (WavLM).
    """

    name: ClassVar[str] = "gaussian_dropout"
    version: ClassVar[int] = 1
    noise: ClassVar[str] = "gaussian"

    p: float | None = argument(
        DEFAULT_P,
        "probability for every site, in [0, 1); not used, and None, when ``rates`` is given",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {"p": self.p} if self.rates is None else self.rates
        over = [name for name, p in given.items() if p >= 1.0]
        if over:
            raise ValueError(f"{', '.join(over)} must be below 1, where the variance p/(1-p) of the noise is infinite")

    def attach(self, model: nn.Module) -> list[str]:
        """Put the noise in place of dropout at the sites, set the rates, and measure that both took."""
        return [f"{line}, Gaussian" for line in super().attach(model)]

    def _make_noise(self, sites: Sequence[Site], undo: Undo) -> None:
        for change in [change for site in sites for change in _changes(site)]:
            undo.set(*change)


def _changes(site: Site) -> list[tuple[nn.Module, str, object]]:
    """What makes the noise of a site Gaussian: ``(module, attribute, new value)``."""
    modules = dict.fromkeys(rate.module for rate in site.rates if rate.attribute in ("p", "drop_prob"))
    changes = [(module, "__class__", noisy(type(module))) for module in modules]
    if site.name.endswith("attention_probs"):
        attention = site.runs_in[-1]
        config = redirected(attention)
        if config is not None:
            return [*changes, (attention, "config", config)]
        if not modules:
            raise ValueError(
                f"the attention weights of {type(attention).__name__} never leave one fused operation, so "
                "GaussianDropout cannot reach them; give rates for the other sites: GaussianDropout(rates={...})"
            )
    return changes
