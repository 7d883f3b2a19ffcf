"""Logits at the labelled tokens only: nothing else enters the loss, and a vocabulary is large."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from klnorm_lib.probes.fisher.losses import IGNORED, bare, inputs_of, wide


class Selection:
    """Hands a language model's output layer the labelled tokens of a batch, one sequence after the other.

    ``offsets``: B + 1 positions where each sequence begins among them.
    """

    def __init__(self, kind: str, batch: Mapping[str, Tensor]) -> None:
        labels = batch["labels"][:, 1:] if kind == "causal" else batch["labels"]
        self.kind, self.batch, self.shape = kind, batch, batch["labels"].shape
        self.sequence, self.position = (labels != IGNORED).nonzero(as_tuple=True)
        self.labels = labels[self.sequence, self.position].long()
        self.counts = torch.bincount(self.sequence, minlength=len(labels))
        self.offsets = [0, *self.counts.cumsum(0).tolist()]

    def __call__(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (N, D)."""
        if hidden.shape[:2] != self.shape:
            raise ValueError(f"the output layer was given {tuple(hidden.shape)} for labels {tuple(self.shape)}")
        return hidden[self.sequence, self.position]

    def loss(self, model: nn.Module) -> Tensor:
        """As ``losses.token_loss``, (B,), for a model whose output layer is handed the selection."""
        logits = model(**inputs_of(self.kind, model, self.batch)).logits
        if logits.shape[:-1] != self.labels.shape:
            raise ValueError(f"logits of shape {tuple(logits.shape)} for {len(self.labels)} selected tokens")
        each = F.cross_entropy(wide(logits), self.labels, reduction="none")
        sums = each.new_zeros(len(self.counts)).index_add(0, self.sequence, each)
        return sums / self.counts


def output_layer(model: nn.Module) -> nn.Module | None:
    """The linear layer that makes a language model's logits, or None."""
    inner = bare(model)
    layer = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    return layer if isinstance(layer, nn.Linear) else None
