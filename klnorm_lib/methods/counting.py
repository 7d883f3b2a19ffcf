"""What a method adds, by formula: parameters, and multiplications for one example."""

from __future__ import annotations

from klnorm_lib.methods.child_tuning import ChildTuning
from klnorm_lib.methods.contract import Method
from klnorm_lib.methods.dropout import Dropout
from klnorm_lib.methods.ewc import EWC
from klnorm_lib.methods.guided_dropout import GuidedDropout
from klnorm_lib.methods.klnorm import KLNorm
from klnorm_lib.methods.l2_sp import L2SP
from klnorm_lib.methods.mixout import Mixout
from klnorm_lib.methods.mlp_head import MLPHead
from klnorm_lib.methods.norm_head import NormHead
from klnorm_lib.methods.r_drop import RDrop
from klnorm_lib.methods.vib import VIB

NOTHING = (Dropout, GuidedDropout, Mixout, RDrop, L2SP, EWC, ChildTuning)  # added to the parameters


def added_parameters(method: Method | None, width: int, outputs: int = 2) -> int:
    r"""Trainable parameters that ``method`` adds before a head of ``width`` features and ``outputs`` logits.

    With d the width, r the rank, K the bottleneck, C the outputs and, as in VIB's network, :math:`h = (d + K)//2` and
    :math:`i = (h + d)//2`:

    * KL-Norm: form A :math:`2d`; forms B and C with low-rank heads :math:`4rd + 2d`, diagonal ones :math:`4d`, full
      ones :math:`2d^2 + 2d`; a learned prior :math:`2d` more;
    * a normalisation :math:`2d`, RMS normalisation :math:`d`; the residual network of the same size
      :math:`4rd + 2d`;
    * VIB: :math:`(d+1)i + (i+1)h + 2(h+1)K + 2K`, and its classifier reads K features in place of d:
      :math:`(K - d)C` more;
    * dropout, Mixout, R-Drop, L2-SP, EWC, Child-Tuning and no method (None): 0.

    Raises ``ValueError`` for KL-Norm inside the encoder, which depends on how many normalisations that has, and
    ``TypeError`` for a method that it does not know.
    """
    d = width
    if isinstance(method, KLNorm):
        if method.placement != "pooled":
            raise ValueError("counted is KL-Norm before the head; inside the encoder ask apply(...).added_parameters")
        heads = {"low_rank": 4 * method.rank * d + 2 * d, "diagonal": 4 * d, "full": 2 * d * d + 2 * d}
        prior = 2 * d if method.prior == "learned_diagonal" else 0
        return (2 * d if method.form == "A" else heads[method.heads]) + prior
    if isinstance(method, NormHead):
        return d if method.kind == "rms" else 2 * d
    if isinstance(method, MLPHead):
        return 4 * method.rank * d + 2 * d
    if isinstance(method, VIB):
        k, (h, i) = method.bottleneck, _vib_widths(method, d)
        return (d + 1) * i + (i + 1) * h + 2 * (h + 1) * k + 2 * k + (k - d) * outputs
    if method is None or isinstance(method, NOTHING):
        return 0
    raise TypeError(f"no formula for {type(method).__name__}; ask apply(model, method).added_parameters")


def encoder_parameters(width: int, layers: int) -> int:
    r"""Weights in the matrices of a transformer's ``layers``, :math:`12 L d^2`: attention :math:`4d^2`, network
    :math:`8d^2` with its usual inner width 4d. Embeddings, biases and normalisations are left out.
    """
    return 12 * layers * width * width


def _vib_widths(method: VIB, width: int) -> tuple[int, int]:
    h = (width + method.bottleneck) // 2
    return h, (h + width) // 2
