"""NormHead: a plain normalisation at KL-Norm's place, the control for the word *norm* in its name.

Layer normalisation (Ba et al. 2016), batch (Ioffe and Szegedy 2015), RMS (Zhang and Sennrich 2019) and group
normalisation (Wu and He 2018), each with the usual affine part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from klnorm_lib import functional
from klnorm_lib.methods.affine import Affine, HasAffine
from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.method import Method, whole_numbers
from klnorm_lib.methods.head import insert_before_head
from klnorm_lib.methods.standardiser import Standardiser


@dataclass(frozen=True)
class NormHead(Method):
    """Normalisation with affine part before the head's last Linear.

    Raises ``ValueError`` for another kind, groups below 1, or eps not positive.
    """

    kind: str = argument("layer", "``layer``, ``batch``, ``rms`` or ``group``")
    groups: int = argument(8, "number of slices of the group kind; must divide the width")
    eps: float = argument(1e-5, "added to the variance before the root is taken, above 0")

    name = "norm_head"

    def __post_init__(self) -> None:
        whole_numbers(self, "groups")
        if self.kind not in functional.STATISTICS:
            raise ValueError(f"unknown kind {self.kind!r}; choose one of {', '.join(functional.STATISTICS)}")
        if self.groups < 1 or not self.eps > 0:
            raise ValueError(f"groups must be at least 1 and eps positive, got groups={self.groups}, eps={self.eps}")

    @property
    def properties(self) -> frozenset[str]:
        return frozenset({"deterministic"} | ({"batch_invariant"} if self.kind != "batch" else set()))

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        """A scale and a shift for each feature; RMS normalisation has no shift."""
        return width if self.kind == "rms" else 2 * width

    def attach(self, model: nn.Module) -> list[str]:
        """Insert the layer before the head."""
        path = insert_before_head(model, lambda size: NormLayer(size, self))
        return [f"{self.kind} normalisation before {path}"]


class NormLayer(HasAffine):
    r""":math:`y = \gamma\hat x + b`; shapes (..., features), unchanged."""

    def __init__(self, features: int, config: NormHead) -> None:
        super().__init__()
        self.standardise = Standardiser(features, config.kind, config.eps, config.groups)
        self.LayerNorm = Affine(features, shift=config.kind != "rms")  # RMS normalisation has no shift, by definition

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            # y = gamma x_hat + b
            y = self.LayerNorm(self.standardise(x.to(torch.promote_types(torch.float32, x.dtype))))
        return y.to(x.dtype)
