r"""VIB: a variational information bottleneck before the classifier, the ancestor of KL-Norm.

After Mahabadi, Belinkov and Henderson, "Variational Information Bottleneck for Effective Low-Resource
Fine-Tuning" (arXiv 2106.05469). The pooled vector is compressed by a two-layer network to
:math:`z = \mu + \sigma\epsilon \in \mathbb R^K`, :math:`\sigma = \mathrm{softplus}(\cdot)`, and a fresh classifier
reads z; the prior :math:`\mathcal N(\mu_p, \mathrm{softplus}(s_p)^2)` is learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from klnorm_lib import functional
from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.method import Method, whole_numbers
from klnorm_lib.methods.head import insert_before_head
from klnorm_lib.methods.monitoring import means_of
from klnorm_lib.methods.penalty import PenaltyLayer
from klnorm_lib.methods.precision import of_trained
from klnorm_lib.methods.schedule import Schedule


@dataclass(frozen=True)
class VIB(Method):
    """Information bottleneck of width ``bottleneck``; cross-entropy, mean over ``samples`` of z, plus beta KL.

    Under the linear schedule beta grows with the optimiser steps; the authors' code lets it grow with the epoch.
    Evaluation uses z = mu.
    Raises ``ValueError`` for a bottleneck or samples below 1, a negative beta or an unknown schedule.
    """

    bottleneck: int = argument(144, "K, the number of features that are left, at least 1")
    beta: float = argument(
        1e-5,
        "KL weight, in units of the loss per nat, at least 0; the KL is summed over features and averaged "
        "over examples",
    )
    samples: int = argument(5, "samples of z for each example in training, at least 1; the loss is their mean")
    schedule: str = argument(
        "linear",
        "of beta: ``linear``, ``constant`` or ``cyclical``; all but constant need ``report.callbacks`` or "
        "``report.step()``",
    )
    warmup_steps: int = argument(100, "optimiser steps in which beta rises, where the schedule is not constant")
    seed: int = argument(0, "of all new layers, the classifier among them")

    name = "vib"
    properties = frozenset({"mean_preserving"})

    def __post_init__(self) -> None:
        whole_numbers(self, "bottleneck", "samples", "warmup_steps", "seed")
        if self.bottleneck < 1 or self.samples < 1:
            raise ValueError(
                f"bottleneck and samples must be at least 1, got bottleneck={self.bottleneck}, samples={self.samples}"
            )
        Schedule(self.schedule, self.beta, self.warmup_steps)

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        r"""With K the bottleneck, d the width and C the outputs, :math:`(d+1)i + (i+1)h + 2(h+1)K + 2K`, and the
        classifier reads K features in place of d: :math:`(K - d)C` more.
        """
        k, (h, i) = self.bottleneck, _widths(width, self.bottleneck)
        return (width + 1) * i + (i + 1) * h + 2 * (h + 1) * k + 2 * k + (k - width) * outputs

    def attach(self, model: nn.Module) -> list[str]:
        """Insert the bottleneck and a fresh classifier from K features."""
        generator = torch.Generator().manual_seed(self.seed)

        def classifier(old: nn.Linear) -> nn.Linear:
            new = nn.Linear(self.bottleneck, old.out_features, bias=old.bias is not None)
            _draw(new, generator)
            return new.to(device=old.weight.device, dtype=of_trained(old.weight.dtype))

        path = insert_before_head(model, lambda size: VIBLayer(size, self, generator), classifier)
        return [f"bottleneck of {self.bottleneck} before {path}, which is replaced by a fresh classifier"]


class VIBLayer(PenaltyLayer):
    r"""Pooled vector -> MLP (hidden -> i -> h, ReLU) -> mu, sigma -> z.

    h = (hidden + K)//2, i = (h + hidden)//2. Shapes: (batch, hidden) -> (batch, K); in training with labels
    (samples * batch, K), samples outermost, for which the model's forward repeats the labels.
    """

    def __init__(self, features: int, config: VIB, generator: torch.Generator) -> None:
        super().__init__(Schedule(config.schedule, config.beta, config.warmup_steps))
        self.samples = config.samples
        h, i = _widths(features, config.bottleneck)
        self.encoder = nn.Sequential(nn.Linear(features, i), nn.ReLU(), nn.Linear(i, h), nn.ReLU())
        self.mean = nn.Linear(h, config.bottleneck)
        self.raw_std = nn.Linear(h, config.bottleneck)
        self.prior_mean = nn.Parameter(torch.zeros(config.bottleneck))
        self.prior_raw_std = nn.Parameter(torch.full((config.bottleneck,), math.log(math.expm1(1.0))))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _draw(module, generator)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2:
            raise ValueError(f"VIB needs one pooled vector an example, (batch, features); got shape {tuple(x.shape)}")
        hidden = self.encoder(x.to(self.mean.weight.dtype))
        mean, std = self.mean(hidden), F.softplus(self.raw_std(hidden).float())
        prior = self.prior_mean, F.softplus(self.prior_raw_std.float())
        self.penalise(functional.kl_diag_gaussian(mean, std, *prior))
        if means_of(self) is not None:
            self.note_features(functional.kl_per_feature(mean, std, *prior))
        if not self.training:
            return mean
        mean, std = mean.repeat(self._repeats, 1), std.to(mean.dtype).repeat(self._repeats, 1)
        return mean + std * functional.normal_like(mean)  # z = mu + sigma epsilon


def _widths(features: int, bottleneck: int) -> tuple[int, int]:
    """h and i of the network."""
    h = (features + bottleneck) // 2
    return h, (h + features) // 2


def _draw(linear: nn.Linear, generator: torch.Generator) -> None:
    """torch's own initialisation of a Linear, from a generator of its own."""
    bound = 1 / math.sqrt(linear.in_features)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
