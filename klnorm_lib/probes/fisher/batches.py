"""Batches as dicts of tensors: how many rows they have, and some of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from operator import mul
from typing import Any

import torch
from torch import Tensor


def rows_of(batch: Mapping[str, Any]) -> int:
    """How many sequences a batch has. Raises ``ValueError`` if its tensors disagree, or for a batch without any."""
    if not isinstance(batch, Mapping):
        raise ValueError(f"a batch must be a dict of tensors, got {type(batch).__name__}")
    sizes = {k: v.shape[0] for k, v in batch.items() if isinstance(v, Tensor) and v.dim()}
    if not sizes or len(set(sizes.values())) > 1:
        raise ValueError(f"the tensors of a batch must have one row a sequence, all as many; got rows {sizes}")
    return next(iter(sizes.values()))


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch as a plain dict, tensors on ``device``, and such as a backward pass can keep."""
    with torch.inference_mode(False):
        tensors = {k: v.to(device) for k, v in batch.items() if isinstance(v, Tensor)}
        return {**batch, **{k: v.clone() if v.is_inference() else v for k, v in tensors.items()}}


def take(batch: Mapping[str, Any], rows: Tensor | slice) -> dict[str, Any]:
    """Some rows of every tensor; what is not a tensor with rows stays."""
    return {k: v[rows] if isinstance(v, Tensor) and v.dim() else v for k, v in batch.items()}


def one_row(batch: Mapping[str, Any], index: int, rows: int) -> dict[str, Any]:
    """The batch of one sequence."""
    return take(batch, slice(index, index + 1)) if rows > 1 else dict(batch)


def unlike_rows(batch: Mapping[str, Any], rows: int, number: int) -> dict[str, Any]:
    """``number`` of the ``rows`` sequences, from the shortest to the longest by ``attention_mask``; twice if few."""
    mask = batch.get("attention_mask")
    order = torch.arange(rows)
    if isinstance(mask, Tensor) and mask.dim() > 1:
        order = mask.ne(0).flatten(1).sum(1).argsort(stable=True).cpu()
    chosen = order[(torch.arange(number) * (rows - 1) / max(1, number - 1)).round().long()]
    device = next(v.device for v in batch.values() if isinstance(v, Tensor))
    return take(batch, chosen.to(device))


def token_counts(batch: Mapping[str, Any]) -> set[int]:
    """How many tokens (frames, or elements) a sequence has, by the tensors of the batch."""
    shapes = (v.shape[1:] for v in batch.values() if isinstance(v, Tensor) and v.dim() > 1)
    return {count for shape in shapes for count in accumulate(shape, mul)}


def shapes(batch: Mapping[str, Any]) -> tuple:
    """What a row of each tensor looks like, to tell batches of another length or make."""
    return tuple(sorted((k, tuple(v.shape[1:])) for k, v in batch.items() if isinstance(v, Tensor) and v.dim()))
