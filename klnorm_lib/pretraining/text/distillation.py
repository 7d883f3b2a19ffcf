"""A teacher for pretraining: the vectors that a larger encoder gives to the same words, whatever its vocabulary.

Two vocabularies cut a text at different positions, but both keep its words apart; so word vectors (the mean over a
word's pieces) can be compared where piece vectors cannot. Hidden-state distillation: Jiao et al. 2020 (TinyBERT).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Targets:
    """Teacher vectors of one batch: ``words`` (words, teacher width), ``sentences`` (batch, teacher width), and
    ``index`` (batch, length), the word that each of the student's pieces belongs to, -1 for none."""

    words: Tensor
    sentences: Tensor
    index: Tensor


class Teacher:
    """A frozen sentence encoder that reads the student's rows as words.

    ``name``: folder, mirror or hub id of an encoder with a fast WordPiece tokenizer; ``pieces``: the student's
    vocabulary in id order. Sentences are means over pieces, as in sentence-transformers (Reimers and Gurevych 2019).
    """

    def __init__(self, name: str, pieces: list[str], special: int, device: torch.device) -> None:
        from transformers import AutoModel, AutoTokenizer

        from klnorm_lib.encoders.no_code import open_pretrained
        from klnorm_lib.encoders.sources import resolve

        self.source = resolve(name)
        where, revision = self.source.location, self.source.revision
        model = open_pretrained(AutoModel, where, revision=revision, dtype=torch.float32, use_safetensors=True)
        self.model = model.eval().to(device)
        self.tokenizer = open_pretrained(AutoTokenizer, where, revision=revision).backend_tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.model.config.max_position_embeddings)
        self.pieces = pieces
        self.special = special
        self.device = device
        self.width = self.model.config.hidden_size

    @torch.no_grad()
    def targets(self, rows: Tensor) -> Targets:
        """Vectors of the words in ``rows`` (batch, length), token ids of the student before any masking."""
        texts, index = self._words(rows.tolist())
        hidden, owner, mask = self._read(texts)
        total = sum(map(len, texts))
        words = mean_by(hidden.flatten(0, 1), owner.flatten(), total)
        weight = mask.unsqueeze(-1).float()
        return Targets(words, (hidden * weight).sum(1) / weight.sum(1), index.to(self.device))

    @torch.no_grad()
    def static(self, batch: int = 256) -> np.ndarray:
        """The sentence vector of every piece of the student's vocabulary on its own (vocabulary, teacher width)."""
        parts = []
        for start in range(0, len(self.pieces), batch):
            texts = [[piece.removeprefix("##")] for piece in self.pieces[start : start + batch]]
            hidden, _, mask = self._read(texts)
            weight = mask.unsqueeze(-1).float()
            parts.append(((hidden * weight).sum(1) / weight.sum(1)).cpu().numpy())
        return np.concatenate(parts)

    def _words(self, rows: list[list[int]]) -> tuple[list[list[str]], Tensor]:
        texts, index, word = [], np.full((len(rows), len(rows[0])), -1, np.int64), -1
        for r, row in enumerate(rows):
            texts.append([])
            for position, token in enumerate(row):
                if token < self.special and self.pieces[token] != "[UNK]":
                    continue
                piece = self.pieces[token]
                if piece.startswith("##") and texts[r]:
                    texts[r][-1] += piece[2:]
                else:
                    texts[r].append(piece.removeprefix("##"))
                    word += 1
                index[r, position] = word
        return texts, torch.from_numpy(index)

    def _read(self, texts: list[list[str]]) -> tuple[Tensor, Tensor, Tensor]:
        """Last hidden states, the word of each piece (-1: none, counted through the batch), and the mask."""
        encodings = self.tokenizer.encode_batch(texts, is_pretokenized=True)
        length = max(len(e.ids) for e in encodings)
        ids = torch.zeros(len(texts), length, dtype=torch.long)
        owner = torch.full((len(texts), length), -1)
        mask = torch.zeros(len(texts), length, dtype=torch.long)
        first = 0
        for i, (encoding, words) in enumerate(zip(encodings, texts, strict=True)):
            n = len(encoding.ids)
            ids[i, :n] = torch.tensor(encoding.ids)
            mask[i, :n] = 1
            owner[i, :n] = torch.tensor([-1 if w is None else first + w for w in encoding.word_ids])
            first += len(words)
        ids, owner, mask = ids.to(self.device), owner.to(self.device), mask.to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden.float(), owner, mask


class Distiller(nn.Module):
    """Linear maps from the student's vectors to the teacher's, and the distance that remains.

    Loss: mean over words of 1 - cos(A h, t), plus mean over sentences of 1 - cos(B s, t), where h is the mean of a
    word's pieces in the last layer and s the student's pooled vector.
    """

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.words = nn.Linear(hidden_size, width)
        self.sentences = nn.Linear(hidden_size, width)

    def forward(self, hidden: Tensor, pooled: Tensor, targets: Targets) -> Tensor:
        """Shapes: ``hidden`` (batch, length, hidden), ``pooled`` (batch, hidden); a scalar, between 0 and 4."""
        words = mean_by(hidden.float().flatten(0, 1), targets.index.flatten(), len(targets.words))
        known = targets.words.abs().sum(-1) > 0  # a word that the teacher had to cut off has no vector
        near = F.cosine_similarity(self.words(words[known]), targets.words[known], dim=-1).mean()
        whole = F.cosine_similarity(self.sentences(pooled.float()), targets.sentences, dim=-1).mean()
        return 2 - near - whole


def mean_by(vectors: Tensor, group: Tensor, groups: int) -> Tensor:
    """Mean of the ``vectors`` (n, width) of every group; ``group`` (n,) holds indices, -1 for none; zero if empty."""
    kept = group >= 0
    total = vectors.new_zeros(groups, vectors.shape[-1]).index_add_(0, group[kept], vectors[kept])
    count = vectors.new_zeros(groups).index_add_(0, group[kept], vectors.new_ones(int(kept.sum())))
    return total / count.clamp(min=1).unsqueeze(-1)
