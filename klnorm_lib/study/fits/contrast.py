"""Batches of pairs of rows, and the loss that compares their embeddings; for ``setfit``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from klnorm_lib.sites.positions import real_positions
from klnorm_lib.study.errors import StudyError


class Pairs(torch.utils.data.Dataset):
    """As many items as rows: a row and its partner, another row of its class (of any, where labels are scores).

    A row that is alone in its class is its own partner, seen through another dropout mask.
    """

    def __init__(self, rows, regression: bool, seed: int) -> None:
        self.rows = rows
        labels = np.asarray(rows["label"])
        same = np.ones((len(labels), len(labels)), bool) if regression else labels[:, None] == labels
        np.fill_diagonal(same, False)
        self.partners = [np.flatnonzero(row) if row.any() else np.array([i]) for i, row in enumerate(same)]
        self.random = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        return [self.rows[index], self.rows[int(self.random.choice(self.partners[index]))]]


class Embedder(nn.Module):
    """An encoder whose logits are the mean hidden state (batch, width), and whose loss compares the batch's rows.

    ``span``: range of the scores; None for classes.
    """

    accepts_loss_kwargs = False

    def __init__(self, encoder: nn.Module, span: float | None) -> None:
        super().__init__()
        self.encoder, self.config, self.span = encoder, encoder.config, span

    def forward(self, labels: Tensor | None = None, **inputs):
        """Embeddings of a batch, and with ``labels`` the loss over its pairs."""
        from transformers.modeling_outputs import SequenceClassifierOutput

        hidden = getattr(self.encoder(**inputs), "last_hidden_state", None)
        if hidden is None or hidden.ndim != 3:
            raise StudyError(
                f"{type(self.encoder).__name__} gives no last hidden states (rows, positions, width), so it cannot be "
                "used with method 'setfit'; fine-tune it with method 'plain'"
            )
        real = real_positions(self.config, inputs.get("attention_mask"), hidden.shape[1])
        hidden = hidden.float()
        weight = torch.ones_like(hidden[..., :1]) if real is None else real[..., None].to(hidden)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        return SequenceClassifierOutput(loss=None if labels is None else contrast(mean, labels, self.span), logits=mean)


def contrast(embeddings: Tensor, labels: Tensor, span: float | None = None) -> Tensor:
    """The loss of ``klnorm_lib.study.fits.setfit``: (rows, width) and (rows,) -> ().

    ``span``: range of scores; None: classes.

    Same-class and other pairs weigh one half each; where a batch has one kind only, that kind is the loss.
    """
    first, second = torch.triu_indices(len(labels), len(labels), offset=1, device=labels.device)
    with torch.autocast(embeddings.device.type, enabled=False):
        unit = F.normalize(embeddings.float(), dim=-1)
        cosine = (unit[first] * unit[second]).sum(-1)
        if span is not None:
            distance = (labels[first] - labels[second]).abs().float() / span
            return (cosine - (1 - distance)).square().mean()
        same = labels[first] == labels[second]
        parts = [(1 - cosine[same]).square(), cosine[~same].square()]
        return torch.stack([part.mean() for part in parts if len(part)]).mean()


def span_of(scores: np.ndarray) -> float:
    """The range of the training scores; raises ``StudyError`` where all are equal."""
    span = float(np.ptp(scores))
    if not span > 0:
        raise StudyError("all training scores are equal, so method 'setfit' has no pairs to compare; use more rows")
    return span
