"""Kullback-Leibler divergences between Gaussians, in nats."""

from __future__ import annotations

import torch
from torch import Tensor

from klnorm_lib.functional._precision import at_least_float32


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
    mean, std, prior_mean, prior_std = at_least_float32(mean, std, prior_mean, prior_std)
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
