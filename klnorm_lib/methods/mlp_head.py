"""MLPHead: as many parameters as KL-Norm's low-rank form B, no normalisation, no KL: the control for capacity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from klnorm_lib.methods.affine import Affine, HasAffine
from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.method import Method, whole_numbers
from klnorm_lib.methods.head import insert_before_head


@dataclass(frozen=True)
class MLPHead(Method):
    """Residual two-layer network before the head's last Linear, of the same size as ``KLNorm(rank=rank)``.

    Parameters: 4 rank features + 2 features, as the heads of KL-Norm's form B. Starts as the identity.
    Raises ``ValueError`` for a rank below 1.
    """

    rank: int = argument(16, "half the hidden width, at least 1; the size is that of ``KLNorm(rank=rank)``")
    seed: int = argument(0, "of the first matrix of the network; the second starts at zero")

    name = "mlp_head"
    properties = frozenset({"identity_at_init", "deterministic", "batch_invariant"})

    def __post_init__(self) -> None:
        whole_numbers(self, "rank", "seed")
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        """4 rank features + 2 features."""
        return 4 * self.rank * width + 2 * width

    def attach(self, model: nn.Module) -> list[str]:
        """Insert the network before the head."""
        path = insert_before_head(model, lambda size: MLPLayer(size, self))
        return [f"two-layer network without normalisation before {path}"]


class MLPLayer(HasAffine):
    r""":math:`y = e \odot x + V\,\mathrm{relu}(U x) + c` with V = 0, e = 1, c = 0 at first.

    Shapes: (..., features), unchanged; U (2 rank, features), V (features, 2 rank).
    """

    def __init__(self, features: int, config: MLPHead) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(config.seed)
        self.inner = nn.Parameter(torch.randn(2 * config.rank, features, generator=generator) / math.sqrt(features))
        self.outer = nn.Parameter(torch.zeros(features, 2 * config.rank))
        self.LayerNorm = Affine(features)  # e and c, which weight decay spares under this name

    def forward(self, x: Tensor) -> Tensor:
        read = x.to(self.inner.dtype)  # beside a frozen model in half precision the network is float32
        # y = e x + V relu(U x) + c
        added = F.linear(F.relu(F.linear(read, self.inner)), self.outer, self.LayerNorm.bias)
        return (self.LayerNorm.weight * read + added).to(x.dtype)
