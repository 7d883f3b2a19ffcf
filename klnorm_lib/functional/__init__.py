"""Closed-form maths of the book: tensors in, tensors out, no state.

Divergences are in nats, penalties in the unit of their loss; both are computed in at least float32, whatever the
dtype of the inputs, so that they survive fp16 and bf16 autocast.
"""

from klnorm_lib.functional.dropout import (
    dropout_penalty_curvature,
    dropout_penalty_linear,
    dropout_penalty_softmax,
    dropout_variance,
)
from klnorm_lib.functional.gaussian import affine_gaussian_kl, kl_diag_gaussian, kl_per_feature
from klnorm_lib.functional.noise import gaussian_dropout, normal_like
from klnorm_lib.functional.standardisation import STATISTICS, batch_moments, standardise

__all__ = [
    "STATISTICS",
    "affine_gaussian_kl",
    "batch_moments",
    "dropout_penalty_curvature",
    "dropout_penalty_linear",
    "dropout_penalty_softmax",
    "dropout_variance",
    "gaussian_dropout",
    "kl_diag_gaussian",
    "kl_per_feature",
    "normal_like",
    "standardise",
]
