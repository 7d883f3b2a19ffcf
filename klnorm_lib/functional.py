"""Closed-form maths of the book: tensors in, tensors out, no state.

Divergences are in nats and computed in at least float32, whatever the dtype of the inputs, so that
they survive fp16 and bf16 autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor

STATISTICS = ("layer", "batch", "rms", "group")


def _at_least_float32(*values: Tensor | float) -> list[Tensor]:
    tensors = [v if isinstance(v, Tensor) else torch.as_tensor(float(v)) for v in values]
    dtype = torch.float32
    for tensor, given in zip(tensors, values, strict=True):
        if not tensor.is_floating_point():
            raise TypeError(f"expected floating-point tensors, got {tensor.dtype}; convert with .float()")
        if isinstance(given, Tensor):
            dtype = torch.promote_types(dtype, tensor.dtype)
    device = next((v.device for v in values if isinstance(v, Tensor)), torch.device("cpu"))
    return [t.to(device=device, dtype=dtype) for t in tensors]


def kl_per_feature(
    mean: Tensor, std: Tensor, prior_mean: Tensor | float = 0.0, prior_std: Tensor | float = 1.0
) -> Tensor:
    r"""KL divergence of one Gaussian from another, feature by feature.

    .. math:: \tfrac12\left[e^{t} - 1 - t + \left(\tfrac{\mu-\mu_p}{\sigma_p}\right)^2\right],
              \qquad t = 2\ln(\sigma/\sigma_p)

    The difference ``expm1(t) - t`` is never negative in floating point for near-equal pairs, which the
    textbook form :math:`\sigma^2/\sigma_p^2 - 1 - \ln(\sigma^2/\sigma_p^2)` is.

    Shapes: ``mean``, ``std`` (..., features); priors broadcast against them. Returns (..., features), nats.
    Raises ``TypeError`` for integer tensors. Standard deviations must be positive; zero or negative ones give
    inf or nan, as in ``torch.distributions``.
    Source: Kingma and Welling 2014, appendix B; derived in chapter 04.
    """
    mean, std, prior_mean, prior_std = _at_least_float32(mean, std, prior_mean, prior_std)
    with torch.autocast(device_type=mean.device.type, enabled=False):
        t = 2.0 * (torch.log(std) - torch.log(prior_std))
        # expm1(t) - t >= 0 in exact arithmetic; near t = 0 both round alike, and the clamp removes the last ulp.
        variance_term = (torch.expm1(t) - t).clamp_min(0.0)
        return 0.5 * (variance_term + ((mean - prior_mean) / prior_std).square())


def kl_diag_gaussian(
    mean: Tensor, std: Tensor, prior_mean: Tensor | float = 0.0, prior_std: Tensor | float = 1.0
) -> Tensor:
    r"""KL divergence between diagonal Gaussians, summed over the last axis.

    .. math:: \mathrm{KL}\big(\mathcal N(\mu,\mathrm{diag}\,\sigma^2)\,\|\,
              \mathcal N(\mu_p,\mathrm{diag}\,\sigma_p^2)\big)
              = \sum_j \tfrac12\left[e^{t_j} - 1 - t_j + \left(\tfrac{\mu_j-\mu_{p,j}}{\sigma_{p,j}}\right)^2\right]

    Shapes: ``mean``, ``std`` (..., features); returns (...), nats, float32 or wider.
    Raises ``TypeError`` for integer tensors. Source: see :func:`kl_per_feature`.
    """
    return kl_per_feature(mean, std, prior_mean, prior_std).sum(-1)


def affine_gaussian_kl(gamma: Tensor, bias: Tensor) -> Tensor:
    r"""KL of the Gaussian that an affine map makes of standard-normal input, from the standard normal.

    .. math:: \tfrac12\sum_j\left(\gamma_j^2 + b_j^2 - 1 - \ln\gamma_j^2\right)

    Shapes: ``gamma``, ``bias`` (features,); returns a scalar, nats. The sign of ``gamma`` does not matter;
    ``gamma = 0`` gives inf. Zero at ``|gamma| = 1``, ``bias = 0``. Source: chapter 05, form A.
    """
    return kl_diag_gaussian(bias, gamma.abs())


def standardise(
    x: Tensor, statistics: str = "layer", eps: float = 1e-5, groups: int = 1, mask: Tensor | None = None
) -> Tensor:
    r"""Standardised activation, without affine part.

    .. math:: \hat x = (h - m)/\sqrt{v + \epsilon}

    ``layer``: m, v over the last axis. ``group``: over each of ``groups`` equal slices of the last axis.
    ``rms``: m = 0, v = mean square of the last axis. ``batch``: over all leading axes, feature by feature,
    restricted to positions where ``mask`` is true. All use the biased variance, as torch's layers do.

    Shapes: ``x`` (..., features), ``mask`` ``x.shape[:-1]``; returns the shape and dtype of ``x``.
    Raises ``ValueError`` for unknown statistics, groups that do not divide the features, or ``batch`` over
    fewer than two rows. Sources: Ba et al. 2016, Ioffe and Szegedy 2015, Zhang and Sennrich 2019, Wu and He 2018.
    """
    if statistics not in STATISTICS:
        raise ValueError(f"unknown statistics {statistics!r}; choose one of {', '.join(STATISTICS)}")
    wide = x.to(torch.promote_types(torch.float32, x.dtype))
    if statistics == "layer":
        out = _centre_and_scale(wide, eps)
    elif statistics == "rms":
        out = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    elif statistics == "group":
        if groups < 1 or x.shape[-1] % groups:
            raise ValueError(f"{groups} groups do not divide {x.shape[-1]} features; choose a divisor")
        out = _centre_and_scale(wide.unflatten(-1, (groups, -1)), eps).flatten(-2)
    else:
        mean, variance = batch_moments(wide, mask)
        out = (wide - mean) * torch.rsqrt(variance + eps)
    return out.to(x.dtype)


def _centre_and_scale(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)


def batch_moments(x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each feature over all leading axes, at positions where ``mask`` is true.

    Shapes: ``x`` (..., features), ``mask`` ``x.shape[:-1]``; returns two tensors (features,).
    Raises ``ValueError`` for fewer than two rows, over which a variance says nothing.
    """
    rows = x.reshape(-1, x.shape[-1]) if mask is None else x[mask.bool()]
    if rows.shape[0] < 2:
        raise ValueError(
            f"batch statistics need at least 2 rows, got {rows.shape[0]}; enlarge the batch, drop the last "
            "incomplete one (dataloader_drop_last=True), or use layer statistics"
        )
    mean = rows.mean(0)
    return mean, (rows - mean).square().mean(0)
