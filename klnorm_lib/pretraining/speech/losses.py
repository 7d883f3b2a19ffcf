"""The encoder in pretraining and its prediction tasks: several small heads on one encoder.

In the spirit of Pascual et al. 2019 (problem-agnostic speech encoder) and, for the phoneme of each frame, of HuBERT's
frame targets (Hsu et al. 2021), except that here the synthesiser knows the phonemes. All but the prediction for
frames are linear from the pooled vector, on the very path of ``Wav2Vec2ForSequenceClassification``: weighted sum of
layers, projector, mean over frames; so the projector is pretrained too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORE = -100


@dataclass
class Batch:
    """One batch. ``sound`` (batch, samples) and ``lengths``; the rest are targets, ``IGNORE`` where there is none.

    ``frames`` (batch, frames): phonemes; ``bag`` (batch, 4, phonemes): 1 where a phoneme occurs in the
    clip, and in the first, second, last third of its word, -1 where unknown;
    ``classes``: name -> (batch,); ``numbers``: name -> (batch, n), NaN where unknown.
    """

    sound: Tensor
    lengths: Tensor
    frames: Tensor
    bag: Tensor
    classes: dict[str, Tensor]
    numbers: dict[str, Tensor]

    def to(self, device) -> Batch:
        """The same batch on ``device``."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{
            name: {k: v.to(device) for k, v in part.items()} if isinstance(part, dict) else part.to(device)
            for name, part in parts.items()
        })  # fmt: skip


class SpeechModel(nn.Module):
    """An encoder for classification with the heads of its pretraining; ``classes`` and ``numbers``: name -> size."""

    def __init__(
        self, encoder, phonemes: int, classes: dict[str, int], numbers: dict[str, int], weights: dict[str, float]
    ):
        super().__init__()
        self.encoder = encoder
        self.weights = weights
        pooled = encoder.config.classifier_proj_size
        self.phoneme = nn.Linear(encoder.config.hidden_size, phonemes)
        self.bag = nn.Linear(pooled, 4 * phonemes)
        self.classes = nn.ModuleDict({name: nn.Linear(pooled, size) for name, size in classes.items()})
        self.numbers = nn.ModuleDict({name: nn.Linear(pooled, size) for name, size in numbers.items()})

    def vectors(self, sound: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Last hidden states (batch, frames, width), pooled vectors (batch, projection) and the mask of frames."""
        encoder = self.encoder
        mask = (torch.arange(sound.shape[1], device=sound.device) < lengths[:, None]).long()
        out = encoder.wav2vec2(sound, attention_mask=mask, output_hidden_states=True)
        hidden = out.hidden_states[-1]
        if encoder.config.use_weighted_layer_sum:
            weight = encoder.layer_weights.softmax(-1)
            hidden = sum(w * h for w, h in zip(weight, out.hidden_states, strict=True))
        frames = encoder._get_feature_vector_attention_mask(hidden.shape[1], mask)
        projected = encoder.projector(hidden).masked_fill(~frames[..., None], 0.0)
        return out.last_hidden_state, projected.sum(1) / frames.sum(1, keepdim=True), frames

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of every prediction task for which the batch has targets, unweighted."""
        with torch.autocast(batch.sound.device.type, dtype=torch.bfloat16):
            last, pooled, mask = self.vectors(batch.sound, batch.lengths)
            frames = self.phoneme(last)
        pooled = pooled.float()
        found = {"phoneme": _known(frames.float(), batch.frames.masked_fill(~mask, IGNORE))}
        bag = self.bag(pooled).view_as(batch.bag)
        for name, part in (("bag", slice(0, 1)), ("thirds", slice(1, 4))):
            known = batch.bag[:, part] >= 0
            if known.any():
                found[name] = F.binary_cross_entropy_with_logits(bag[:, part][known], batch.bag[:, part][known])
        for name, head in self.classes.items():
            found[name] = _known(head(pooled), batch.classes[name])
        for name, head in self.numbers.items():
            target = batch.numbers[name]
            rows = ~target.isnan().any(1)
            if rows.any():
                found[name] = F.smooth_l1_loss(head(pooled[rows]), target[rows])
        return {name: loss for name, loss in found.items() if loss is not None}

    def total(self, found: dict[str, Tensor]) -> Tensor:
        """Weighted sum of losses."""
        return sum(self.weights[name] * loss for name, loss in found.items())


def _known(logits: Tensor, target: Tensor) -> Tensor | None:
    keep = target != IGNORE
    return F.cross_entropy(logits[keep], target[keep]) if keep.any() else None
