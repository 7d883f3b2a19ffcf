r"""KL-Norm: normalise, let a distribution take the affine part's place, and penalise its KL from a prior.

After Kumar, Narang and Lall, "KL Regularized Normalization Framework for Low Resource Tasks" (arXiv 2212.11275).
Only the abstract was available to us: these are three readings of it, not the paper's equations. All start from
the standardised activation :math:`\hat x` and add :math:`\beta\,\mathrm{KL}(q\,\|\,\text{prior})` to the loss:

* A, static affine: :math:`y = \gamma\hat x + b`, :math:`q = \mathcal N(b, \gamma^2)`.
* B, input-dependent affine (default): :math:`y = \mu(\hat x) + \sigma(\hat x)\,\hat x`,
  :math:`q = \mathcal N(\mu, \sigma^2)`.
* C, normalise, then sample: :math:`z = \mu(\hat x) + \sigma(\hat x)\,\epsilon` in training,
  :math:`z = \mu` in evaluation.

Derived in chapter 05, built in chapter 06.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from klnorm_lib import functional
from klnorm_lib.methods.affine import Affine, HasAffine
from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.method import Method, whole_numbers
from klnorm_lib.methods.contract.undo import replace_module
from klnorm_lib.methods.head import insert_before_head
from klnorm_lib.methods.heads import GaussianHeads
from klnorm_lib.methods.penalty import PenaltyLayer
from klnorm_lib.methods.precision import of_trained
from klnorm_lib.methods.replaced_norm import MeasuredNorm, measure_norm
from klnorm_lib.methods.schedule import Schedule
from klnorm_lib.methods.standardiser import ChannelStandardiser, Standardiser
from klnorm_lib.sites import norm_paths

FORMS = ("A", "B", "C")
PLACEMENTS = ("pooled", "internal")
PRIORS = ("standard_normal", "learned_diagonal")
HEADS = ("diagonal", "low_rank", "full")
SIGMA_C = 0.1  # form C starts near the identity; its first KL is stated in the card


@dataclass(frozen=True)
class KLNorm(Method):
    """KL-regularised normalisation before the head, or in place of the encoder's own normalisations.

    The forms are those of the module. Averaging the KL over features would divide beta by the width. Inside the
    encoder every normalisation that has an affine part becomes y = b0 + gamma0 * (mu + sigma * x_hat), with the
    pretrained gamma0 and b0 as buffers, or with ``train_base`` as parameters.

    There ``layer`` means the statistics of the norm that is replaced, so that forms A and B start as the
    same function: RMS for an RMSNorm, and for the GroupNorm of a Wav2Vec2 feature extractor each channel over time,
    padded frames included, as the model's own code has it. ``rms`` and ``group`` change norms over the last axis. The
    KL is averaged over an example's real positions: in a feature extractor, frames at the rate of that layer.

    ``batch`` statistics are those of the rows that one process sees: under DistributedDataParallel each process
    standardises by its own part of the batch, so loss and gradients differ from those of one process.

    Raises ``ValueError`` for values outside these, and for form A with a learned prior, which could follow the
    posterior exactly and penalise nothing.
    """

    form: str = argument("B", "``A``: static affine; ``B``: input-dependent affine; ``C``: normalise, then sample")
    beta: float = argument(
        1e-3,
        "KL weight, in units of the loss per nat, at least 0; the KL is summed over features and averaged "
        "over examples",
    )
    statistics: str = argument(
        "layer",
        "what the activation is standardised by: ``layer``, ``batch``, ``rms`` or ``group``; inside the "
        "encoder ``layer`` means what the replaced normalisation does",
    )
    placement: str = argument(
        "pooled",
        "``pooled``: one layer before the last linear layer of the head; ``internal``: in place of every "
        "normalisation of the encoder that has a scale, behind its pretrained scale and shift",
    )
    prior: str = argument(
        "standard_normal",
        "``standard_normal``, or ``learned_diagonal``: a mean and a standard deviation for each feature",
    )
    heads: str = argument(
        "low_rank",
        "how mean and standard deviation read the standardised activation in forms B and C: ``diagonal``, "
        "``low_rank`` or ``full``",
    )
    rank: int = argument(16, "rank of the low-rank heads, at least 1")
    schedule: str = argument(
        "constant",
        "of beta: ``constant``, ``linear`` or ``cyclical``; the last two need ``report.callbacks`` or "
        "``report.step()``",
    )
    free_bits: float = argument(0.0, "nats below which a feature of an example is not penalised, at least 0")
    groups: int = argument(8, "number of slices with ``statistics='group'``; must divide the width")
    warmup_steps: int = argument(100, "optimiser steps in which beta rises, where the schedule is not constant")
    train_base: bool = argument(False, "with ``placement='internal'``: whether the pretrained scale and shift train on")
    eps: float = argument(
        1e-5,
        "added to the variance before the root is taken, above 0; inside the encoder each layer keeps its own",
    )
    seed: int = argument(0, "of the random factors of low-rank heads")

    name = "klnorm"

    def __post_init__(self) -> None:
        for field, allowed in (
            ("form", FORMS),
            ("statistics", functional.STATISTICS),
            ("placement", PLACEMENTS),
            ("prior", PRIORS),
            ("heads", HEADS),
        ):
            if getattr(self, field) not in allowed:
                raise ValueError(f"unknown {field} {getattr(self, field)!r}; choose one of {', '.join(allowed)}")
        Schedule(self.schedule, self.beta, self.warmup_steps)
        whole_numbers(self, "rank", "groups", "warmup_steps", "seed")
        if not isinstance(self.train_base, bool):
            raise ValueError(f"train_base must be True or False, got {self.train_base!r}")
        if self.rank < 1 or self.groups < 1:
            raise ValueError(f"rank and groups must be at least 1, got rank={self.rank}, groups={self.groups}")
        if not (math.isfinite(self.free_bits) and self.free_bits >= 0 and math.isfinite(self.eps) and self.eps > 0):
            raise ValueError(f"free_bits must be >= 0 and eps > 0, got free_bits={self.free_bits}, eps={self.eps}")
        if self.form == "A" and self.prior == "learned_diagonal":
            raise ValueError(
                "form A with a learned prior is vacuous: the prior can equal the posterior and the KL stays 0; "
                "use prior='standard_normal' or form B or C"
            )
        if self.placement == "internal" and self.statistics == "batch":
            raise ValueError(
                "batch statistics over padded sequences are not offered inside the encoder; use layer, rms or group"
            )

    @property
    def properties(self) -> frozenset[str]:
        # The pooled vector was not normalised before; inside the encoder only the same statistics give the same start.
        stated = {"identity_at_init"} if self.placement == "internal" and self.statistics == "layer" else set()
        if self.form == "C" and self.statistics == "batch":
            return frozenset({"identity_at_init"})  # in evaluation, by running moments of 0 and 1
        if self.form == "C":
            return frozenset(stated | {"mean_preserving"})
        return frozenset(stated | {"deterministic"} | ({"batch_invariant"} if self.statistics != "batch" else set()))

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        r"""With d the width and r the rank: form A :math:`2d`; forms B and C with low-rank heads :math:`4rd + 2d`,
        diagonal ones :math:`4d`, full ones :math:`2d^2 + 2d`; a learned prior :math:`2d` more.

        Raises ``ValueError`` inside the encoder, where it depends on how many normalisations that has.
        """
        if self.placement != "pooled":
            raise ValueError("counted is KL-Norm before the head; inside the encoder ask apply(...).added_parameters")
        d, prior = width, 2 * width if self.prior == "learned_diagonal" else 0
        heads = {"low_rank": 4 * self.rank * d + 2 * d, "diagonal": 4 * d, "full": 2 * d * d + 2 * d}
        return (2 * d if self.form == "A" else heads[self.heads]) + prior

    def attach(self, model: nn.Module) -> list[str]:
        """Insert the layer before the head (pooled) or replace the encoder's norms (internal)."""
        if self.placement == "pooled":
            path = insert_before_head(model, lambda size: KLNormLayer(size, self))
            return [f"form {self.form} layer before {path}"]
        paths = [p for p in norm_paths(model) if _has_affine_part(model.get_submodule(p))]
        if not paths:
            raise ValueError(
                f"no normalisation with an affine part found inside the encoder of {type(model).__name__}; "
                "use placement='pooled'"
            )
        measured = _measured(model, paths, self.eps)
        for index, path in enumerate(paths):
            old = model.get_submodule(path)
            layer = KLNormLayer(old.weight.numel(), self, base=measured[path], seed=self.seed + index)
            layer.to(device=old.weight.device, dtype=of_trained(old.weight.dtype)).train(old.training)
            replace_module(model, path, layer)
        return [f"form {self.form} in place of {path}" for path in paths]


class KLNormLayer(HasAffine, PenaltyLayer):
    r"""One KL-Norm layer over the last axis, or in place of a GroupNorm over its channels; forms A, B, C.

    Shapes: (batch, features) or (batch, length, features), unchanged; in place of a norm of the channels (batch,
    features, length), whose heads read all channels of a frame. Arithmetic in at least float32, whatever
    autocast says. With ``base`` (a normalisation layer, or one measured) the output becomes :math:`b_0 + \gamma_0\,y`.
    """

    _weight_read = False  # since the forward began

    def __init__(
        self, features: int, config: KLNorm, base: MeasuredNorm | nn.Module | None = None, seed: int | None = None
    ) -> None:
        super().__init__(Schedule(config.schedule, config.beta, config.warmup_steps))
        self.config = config
        self.features = features
        base = measure_norm(base, nn.Module(), "", config.eps) if isinstance(base, nn.Module) else base
        self.channels_first = base is not None and base.channels_first
        self.standardise = _standardiser(features, config, base)
        if config.form == "A":
            self.LayerNorm = Affine(features)
        else:
            sigma = 1.0 if config.form == "B" else SIGMA_C
            generator = torch.Generator().manual_seed(config.seed if seed is None else seed)
            self.heads = GaussianHeads(features, config.heads, config.rank, sigma, generator)
        if config.prior == "learned_diagonal":
            self.prior_mean = nn.Parameter(torch.zeros(features))
            self.prior_raw_std = nn.Parameter(torch.full((features,), math.log(math.expm1(1.0))))
        self.has_base = base is not None
        if base is not None:
            gamma, bias = base.gamma.detach().clone(), base.bias.detach().clone()
            if config.train_base:
                self.base_LayerNorm = Affine(features)
                self.base_LayerNorm.weight, self.base_LayerNorm.bias = nn.Parameter(gamma), nn.Parameter(bias)
            else:
                self.register_buffer("base_gamma", gamma)
                self.register_buffer("base_bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            rows = x.movedim(1, -1) if self.channels_first and isinstance(self.standardise, Standardiser) else x
            y, mean, std = self._normalise(rows.to(torch.promote_types(torch.float32, x.dtype)))
            self.penalise(self._kl(mean, std), x if self.has_base and not self.channels_first else None)
            if self.has_base:
                # b_0 + gamma_0 y
                y = self.base_LayerNorm(y) if self.config.train_base else self.base_bias + self.base_gamma * y
        y = y.to(x.dtype)
        return y.movedim(-1, 1) if self.channels_first else y

    @property
    def weight(self) -> Tensor:
        """The pretrained scale, for code around the norm that asks for its dtype or device."""
        if not self.has_base:
            raise AttributeError("weight")
        self._weight_read = self._open
        return self.base_LayerNorm.weight if self.config.train_base else self.base_gamma

    def finish(self, model: nn.Module, outputs: object, as_tuple: bool) -> None:
        """Raise ``RuntimeError`` if the code around the norm computed with its scale and never called the layer."""
        read, self._weight_read = self._weight_read, False
        if read and not self.penalties:
            raise RuntimeError(
                f"the code of {type(model).__name__} computes with the scale of a normalisation itself and passes the "
                "KL-Norm layer in its place by, so nothing was penalised there; use placement='pooled'"
            )

    def _normalise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_hat = self.standardise(x, update=self._open)
        if self.config.form == "A":
            gamma, bias = self.LayerNorm.weight, self.LayerNorm.bias
            return self.LayerNorm(x_hat), bias, gamma.abs()  # y = gamma x_hat + b, q = N(b, gamma^2)
        offset, std = self.heads(x_hat)
        if self.config.form == "B":
            return offset + std * x_hat, offset, std  # y = mu + sigma x_hat, q = N(mu, sigma^2)
        mean = x_hat + offset
        # z = mu + sigma epsilon in training, z = mu in evaluation
        return (mean + std * functional.normal_like(mean) if self.training else mean), mean, std

    def _kl(self, mean: Tensor, std: Tensor) -> Tensor:
        prior = (0.0, 1.0)
        if self.config.prior == "learned_diagonal":
            prior = (self.prior_mean, F.softplus(self.prior_raw_std))
        kl = functional.kl_per_feature(mean, std, *prior)  # KL(q || prior), one number a feature
        self.note_features(kl)
        if self.config.free_bits:
            kl = kl.clamp_min(self.config.free_bits)  # max(KL, free bits)
        return kl.sum(-1)

    def extra_repr(self) -> str:
        c = self.config
        return f"{self.features}, form={c.form}, statistics={c.statistics}, beta={c.beta}, schedule={c.schedule}"


def _standardiser(features: int, config: KLNorm, base: MeasuredNorm | None) -> nn.Module:
    if base is None:
        return Standardiser(features, config.statistics, config.eps, config.groups)
    if base.statistics == "group":
        return ChannelStandardiser(base.groups, base.eps)
    statistics = base.statistics if config.statistics == "layer" else config.statistics
    return Standardiser(features, statistics, base.eps, config.groups)


def _measured(model: nn.Module, paths: list[str], eps: float) -> dict[str, MeasuredNorm]:
    """Path -> what its norm computes; raises ``ValueError`` naming every norm that the layer cannot replace."""
    found, refused = {}, []
    for path in paths:
        parent, _, name = path.rpartition(".")
        try:
            found[path] = measure_norm(model.get_submodule(path), model.get_submodule(parent), name, eps)
        except ValueError as error:
            refused.append(f"{path} ({type(model.get_submodule(path)).__name__}): {error}")
    if refused:
        raise ValueError(
            f"KL-Norm cannot take the place of {len(refused)} of {len(paths)} normalisations inside "
            f"{type(model).__name__}: {'; '.join(refused[:3])}. Use placement='pooled'"
        )
    return found


def _has_affine_part(norm: nn.Module) -> bool:
    return getattr(norm, "weight", None) is not None and norm.weight.ndim == 1
