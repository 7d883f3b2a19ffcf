"""Features for a frozen baseline: an encoder's mean hidden state, tf-idf, or log-mel energies.

An encoder gives the mean of its last hidden states, over the tokens of a text (padding left out) or the frames of a
clip. Two texts are encoded one by one, u and v, and become u, v, abs(u - v) and u * v (Conneau et al. 2017); tf-idf
does the same with its vectors. Dense features are standardised on the training rows and divided by the square root of
their number, so that a row has a length of about one, as a row of tf-idf has, and one grid of C serves all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from klnorm_lib.study import padding
from klnorm_lib.study.errors import StudyError
from klnorm_lib.study.evaluation import batches
from klnorm_lib.study.log_mel import RATE, clip_features

TF_IDF, LOG_MEL = "tf-idf", "log-mel"
KEPT_BYTES = 512 * 2**20
_kept: OrderedDict[tuple, np.ndarray] = OrderedDict()


def four(u, v):
    """Features of a pair of texts from those of each: u, v, abs(u - v) and u * v, side by side."""
    if isinstance(u, np.ndarray):
        return np.concatenate([u, v, np.abs(u - v), u * v], axis=1)
    from scipy import sparse

    return sparse.hstack([u, v, abs(u - v), u.multiply(v)], format="csr")


def tf_idf(splits: Mapping[str, Any], columns) -> dict[str, Any]:
    """Sparse tf-idf of words and word pairs, sublinear in the count; vocabulary and idf from the training rows only."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    texts = {name: [list(map(str, split[column])) for column in columns] for name, split in splits.items()}
    vectoriser.fit([text for column in texts["train"] for text in column])
    parts = {name: [vectoriser.transform(column) for column in columns_] for name, columns_ in texts.items()}
    return {name: part[0] if len(part) == 1 else four(*part) for name, part in parts.items()}


def log_mels(splits: Mapping[str, Any], seconds: float) -> dict[str, np.ndarray]:
    """Mean and standard deviation over time of the log-mel energies of every clip (rows, 128), standardised."""
    parts = {name: [clip_features(clip) for clip in clips(split, seconds)] for name, split in splits.items()}
    return standardised({name: np.stack(rows) for name, rows in parts.items()})


def clips(split, seconds: float) -> list[np.ndarray]:
    """The samples of every row of an audio split, at 16 kHz, of a longer clip the first ``seconds``."""
    rows = split.with_format("numpy", columns=["audio"])
    return [np.asarray(row["audio"], dtype=np.float32)[: round(seconds * RATE)] for row in rows]


def standardised(parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    r"""Every split with the mean and deviation of the training rows, divided by :math:`\sqrt{\text{features}}`."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(parts["train"].astype(np.float64))
    root = np.sqrt(parts["train"].shape[1])
    return {name: scaler.transform(part.astype(np.float64)) / root for name, part in parts.items()}


def encoded(run, source, task, splits: Mapping[str, Any], checksums: Mapping[str, str], device: str):
    """Standardised mean hidden states of every split, and how many parameters the encoder has.

    Features of a split are kept in memory, up to ``KEPT_BYTES``: the next run with the same weights and rows does not
    make them again, and its numbers are the same.
    """
    limit = run.max_seconds if task.kind == "audio" else run.max_length
    weights = source.sha256 or source.revision, run.seed if source.random else None, limit, device
    keys = {name: (source.name, *weights, task.kind, checksums[name], len(splits[name])) for name in splits}
    parts = {name: _kept[key] for name, key in keys.items() if key in _kept}
    counted = (source.name, *weights, "parameters")
    if len(parts) < len(keys) or counted not in _kept:
        encoder, processor = _encoder(run)
        encoder.to(device)
        for name, split in splits.items():
            if name not in parts:
                parts[name] = _keep(keys[name], _split(encoder, processor, task, split, limit, device))
        _keep(counted, np.array(sum(p.numel() for p in encoder.parameters())))
    return standardised(parts), int(_kept[counted])


def _keep(key: tuple, value: np.ndarray) -> np.ndarray:
    _kept[key] = value
    while sum(part.nbytes for part in _kept.values()) > KEPT_BYTES and len(_kept) > 1:
        _kept.popitem(last=False)
    return value


def _encoder(run):
    from transformers import set_seed

    from klnorm_lib import encoders

    set_seed(run.seed)
    model, processor = encoders.load(run.encoder, 2, run.encoder_source)
    return model.base_model.eval(), processor


def _split(encoder, processor, task, split, limit: float, device: str) -> np.ndarray:
    if task.kind == "audio":
        return _sounds(encoder, processor, clips(split, limit), device)
    columns = [list(map(str, split[column])) for column in task.text_columns]
    means = [_texts(encoder, processor, texts, limit, device) for texts in columns]
    return means[0] if len(means) == 1 else four(*means)


def _texts(encoder, processor, texts: list[str], length: int, device: str) -> np.ndarray:
    """Mean last hidden state over the tokens of each text (rows, width), texts of similar length together.

    Of one length where padding changes the hidden states.
    """
    import torch

    length = min(length, longest(encoder, processor))
    tokens = [processor(text, truncation=True, max_length=length) for text in texts]
    lengths = np.array([len(t["input_ids"]) for t in tokens])
    order = np.argsort(lengths, kind="stable")

    def outputs(rows: list) -> np.ndarray:
        batch = processor.pad(rows, return_tensors="pt")
        hidden = _hidden(encoder, batch.to(device))
        mask = batch["attention_mask"].to(hidden.device)[..., None].float()
        return ((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy()

    with torch.no_grad():
        apart = padding.of_model(encoder, outputs, tokens, lengths) > 0
        pieces = [outputs([tokens[i] for i in order[part]]) for part in batches(lengths[order], equal=apart)]
    means = np.empty((len(texts), pieces[0].shape[1]), dtype=np.float32)
    means[order] = np.concatenate(pieces)
    return means


def _sounds(encoder, processor, sounds: list[np.ndarray], device: str) -> np.ndarray:
    """Mean last hidden state over the frames of each clip (rows, width), one clip at a time: no padding, no mask."""
    import torch

    means = []
    with torch.no_grad():
        for clip in sounds:
            inputs = processor(clip, sampling_rate=RATE, return_tensors="pt").to(device)
            means.append(_hidden(encoder, inputs).mean(1)[0].cpu().numpy())
    return np.stack(means)


def _hidden(encoder, inputs):
    import torch

    hidden = getattr(encoder(**inputs), "last_hidden_state", None)
    if hidden is None or hidden.ndim != 3:
        raise StudyError(
            f"{type(encoder).__name__} gives no last hidden states (rows, positions, width), so it cannot be used with "
            "method 'frozen'; fine-tune it with method 'plain'"
        )
    hidden = hidden.float()
    if not torch.isfinite(hidden).all():
        raise StudyError(f"{type(encoder).__name__} gave hidden states that are NaN or infinite; check its weights")
    return hidden


def longest(model, processor) -> int:
    """Tokens that an encoder has positions for."""
    limits = [getattr(processor, "model_max_length", 2**30)]
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and positions > 0:
        # RoBERTa and its kin start counting after the padding id
        offset = (model.config.pad_token_id or 0) + 1 if "roberta" in model.config.model_type else 0
        limits.append(positions - offset)
    return min(limits)
