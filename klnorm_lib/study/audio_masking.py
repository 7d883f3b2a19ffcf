"""SpecAugment of a speech encoder, measured: how much of the training clips it hides in training mode.

Stock configurations of the wav2vec 2.0 family hide at least two spans of ten frames (0.2 s each) of every clip: a
twentieth of ten seconds, more than a third of one (Park et al. 2019, arXiv 1904.08779).
"""

from __future__ import annotations

import warnings
from typing import Any

from klnorm_lib.study.errors import StudyError

MOST_ROWS = 64
MUCH = 0.2  # of the frames; more is worth a warning


def check(model: Any, rows: Any, collator: Any, batch: int) -> float:
    """Mean share of the real frames of the training rows that SpecAugment hides; 0 without it.

    ``batch``: rows of a forward pass. Random numbers stay as they were. Warns where it is more than a fifth, and raises
    ``StudyError`` where a batch may hold only clips that are shorter than one span, which ends the training.
    """
    base, config = model.base_model, model.config
    hides = getattr(config, "apply_spec_augment", False) and getattr(config, "mask_time_prob", 0) > 0
    if not hides or not hasattr(base, "_mask_hidden_states"):
        return 0.0
    span = config.mask_time_length
    frames = [_frames(base, len(values)) for values in rows["input_values"]]
    short = sum(count < span for count in frames)
    if short >= min(batch, len(frames)):
        raise StudyError(
            f"{short} of {len(frames)} training clips have fewer than the {span} frames that SpecAugment hides at a "
            "time, and a batch of such clips ends the training. Turn it off with spec_augment=False "
            "(--no-spec-augment), or leave out the short clips"
        )
    share = masked_share(base, rows, collator, batch)
    if share > MUCH:
        least = getattr(config, "mask_time_min_masks", 0)
        warnings.warn(
            f"SpecAugment hides {share:.0%} of the training clips' frames in training mode, as the encoder's "
            f"configuration says ({least} spans of {span} frames or more in each clip, however short it is). Turn it "
            "off with spec_augment=False (--no-spec-augment).",
            stacklevel=2,
        )
    return share


def masked_share(base: Any, rows: Any, collator: Any, batch: int) -> float:
    """Mean share of the real frames that the encoder's own masking hides, over at most 64 rows."""
    import torch

    from klnorm_lib.probes.untouched import generators_kept

    counts, own, training = [], base._mask_hidden_states, base.training
    device, real = next(base.parameters()).device, None

    def watched(hidden: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        seen = own(torch.full_like(hidden, torch.nan), *args, **options)
        gone = ~seen.isnan().any(-1)  # masking over features leaves some of a frame
        frames = torch.ones_like(gone)
        if real is not None:
            frames = base._get_feature_vector_attention_mask(hidden.shape[1], real).bool()
        counts.append((int((gone & frames).sum()), int(frames.sum())))
        return hidden

    with generators_kept(base), torch.no_grad():
        base._mask_hidden_states, base.training = watched, True  # of the encoder alone: no dropout is needed
        try:
            for start in range(0, min(len(rows), MOST_ROWS), batch):
                part = collator([rows[i] for i in range(start, min(start + batch, len(rows)))])
                part = {name: value.to(device) for name, value in part.items() if name not in ("label", "labels")}
                real = part.get("attention_mask")
                base(**part)
        finally:
            base.training = training
            del base._mask_hidden_states
    hidden, frames = (sum(count) for count in zip(*counts, strict=True))
    return hidden / frames


def _frames(base: Any, samples: int) -> int:
    return int(base._get_feat_extract_output_lengths(samples))
