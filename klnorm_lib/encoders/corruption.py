"""What a language model predicts about a text: masked tokens, the next token, or missing spans.

Every draw is a function of (seed, index of the sequence). Labels are -100 where nothing is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

KINDS = ("masked", "causal", "seq2seq")
SPAN = 3  # mean length of a missing span, as T5 was trained (Raffel et al. 2020)
_MASKS = 1  # which stream of random numbers, beside those of the windows


class Corruption:
    """Turns token ids into the inputs and targets of a model of one kind.

    ``masked``: BERT's corruption (Devlin et al. 2019): of the tokens chosen with ``probability``, at least one, 80 %
    become the mask, 10 % another token, 10 % stay; the labels are the true tokens. ``causal``: every token but the
    first is predicted from those before it. ``seq2seq``: spans that cover the share ``probability`` are taken out and
    predicted, with T5's sentinels where the tokenizer has them (Raffel et al. 2020); otherwise each span becomes one
    mask and the whole text is predicted (BART, Lewis et al. 2020).

    Raises ``ValueError`` for an unknown kind, a probability outside (0, 1), or a tokenizer without what the kind needs.
    """

    def __init__(self, kind: str, tokenizer, probability: float = 0.15, seed: int = 0) -> None:
        if kind not in KINDS:
            raise ValueError(f"unknown kind of language model {kind!r}; choose one of {', '.join(KINDS)}")
        if not 0 < probability < 1:
            raise ValueError(f"the mask probability must lie between 0 and 1, got {probability}")
        self.kind, self.probability, self.seed = kind, probability, seed
        self.special = np.array(sorted(set(tokenizer.all_special_ids)), dtype=np.int64)
        self.words = np.setdiff1d(np.arange(len(tokenizer)), self.special)
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self.mask, self.end = tokenizer.mask_token_id, tokenizer.eos_token_id
        pieces = tokenizer.get_vocab()
        self.sentinels = [pieces[f"<extra_id_{i}>"] for i in range(100) if f"<extra_id_{i}>" in pieces]
        if kind == "masked" and self.mask is None:
            raise ValueError("the tokenizer has no mask token, so its model is no masked language model")
        if kind == "seq2seq" and not self.sentinels and self.mask is None:
            raise ValueError("the tokenizer has neither sentinels (<extra_id_0>) nor a mask token for missing spans")

    def __call__(self, sequences: Sequence[Sequence[int]], first: int) -> dict[str, Tensor]:
        """A batch of the sequences ``first``, ``first`` + 1, ...: input_ids, attention_mask, labels, right-padded."""
        rows = [self._row(np.asarray(ids), first + i) for i, ids in enumerate(sequences)]
        inputs, labels = zip(*rows, strict=True)
        return {
            "input_ids": _padded(inputs, self.pad),
            "attention_mask": _padded([np.ones_like(ids) for ids in inputs], 0),
            "labels": _padded(labels, -100),
        }

    def _row(self, ids: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self.kind == "causal":
            return ids, ids
        rng = np.random.default_rng([self.seed, index, _MASKS])
        ordinary = np.flatnonzero(~np.isin(ids, self.special))
        if not len(ordinary):
            raise ValueError(f"sequence {index} has no word in it; use other text or longer sequences")
        return (self._masked if self.kind == "masked" else self._spans)(ids, ordinary, rng)

    def _masked(self, ids: np.ndarray, ordinary: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
        chosen = ordinary[rng.random(len(ordinary)) < self.probability]
        if not len(chosen):
            chosen = rng.choice(ordinary, 1)
        kind, noise = rng.random(len(chosen)), rng.choice(self.words, len(chosen))
        inputs, labels = ids.copy(), np.full_like(ids, -100)
        labels[chosen] = ids[chosen]
        inputs[chosen] = np.where(kind < 0.8, self.mask, np.where(kind < 0.9, noise, ids[chosen]))
        return inputs, labels

    def _spans(self, ids: np.ndarray, ordinary: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
        missing = max(1, round(self.probability * len(ordinary)))
        spans = min(max(1, round(missing / SPAN)), len(self.sentinels) or missing, len(ordinary) - missing + 1)
        gone = np.zeros(len(ids), dtype=bool)
        for start, size in _span_positions(len(ordinary), missing, spans, rng):
            gone[ordinary[start : start + size]] = True
        inputs, targets, span = [], [], -1
        for i, token in enumerate(ids):
            if not gone[i]:
                inputs.append(token)
                continue
            if i == 0 or not gone[i - 1]:
                span += 1
                inputs.append(self.sentinels[span] if self.sentinels else self.mask)
                targets += self.sentinels[span : span + 1]
            targets.append(token)
        if not self.sentinels:
            return np.array(inputs), ids
        return np.array(inputs), np.array([*targets, *([self.end] if self.end is not None else [])])


def _span_positions(length: int, missing: int, spans: int, rng) -> list[tuple[int, int]]:
    """Starts and lengths of spans that cover ``missing`` of ``length`` positions, a gap before each but the first."""
    sizes = np.diff([0, *sorted(rng.choice(np.arange(1, missing), spans - 1, replace=False)), missing])
    kept = length - missing
    gaps = np.sort(rng.choice(np.arange(kept + 1), spans, replace=False))
    starts = gaps + np.cumsum([0, *sizes[:-1]])
    return [(int(start), int(size)) for start, size in zip(starts, sizes, strict=True)]


def _padded(rows: Sequence[np.ndarray], value: int) -> Tensor:
    out = torch.full((len(rows), max(map(len, rows))), int(value), dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.from_numpy(np.asarray(row, dtype=np.int64))
    return out
