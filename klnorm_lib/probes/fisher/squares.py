"""Sums over sequences of squared gradients, without a gradient of every sequence kept at once.

A matrix parameter's gradient for sequence n is a product over its tokens, left_n^T right_n, or a scatter of rows, or
(a decoder tied to the word embedding) both together. Tokens of all sequences lie one after the other; ``offsets``
(B + 1 of them) say where each sequence begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

WHOLE = 2**20  # elements of a parameter up to which one buffer has a whole gradient; above, blocks that fit caches
BLOCK = 2**18
ON_ACCELERATOR = 2**26  # elements of gradients that an accelerator multiplies at once


@dataclass(frozen=True)
class Product:
    """Gradient left_n^T right_n: left (N, R), right (N, C), for a parameter of shape (R, C)."""

    left: Tensor
    right: Tensor
    offsets: list[int]


@dataclass(frozen=True)
class Rows:
    """Gradient that adds ``values`` (N, C) to rows ``index`` (N,) of the parameter; ``sequence`` (N,) says whose."""

    index: Tensor
    values: Tensor
    sequence: Tensor


def accumulated(parameters: Mapping[str, nn.Parameter]) -> torch.dtype:
    """The type in which squares are added up: float32, or the parameters' own where that is wider."""
    return reduce(torch.promote_types, {p.dtype for p in parameters.values()}, torch.float32)


def zeros_for(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """For every parameter a tensor of zeros to add squares to, on its device."""
    dtype = accumulated(parameters)
    return {name: torch.zeros(p.shape, dtype=dtype, device=p.device) for name, p in parameters.items()}


def add_squares(total: Tensor, products: list[Product], rows: list[Rows]) -> None:
    """Add to ``total`` (R, C) the sum over sequences of the square of the sum of all contributions."""
    if products:
        add_products(total, products)
    if rows:
        _add_rows(total, products, rows)


def add_products(total: Tensor, products: list[Product]) -> None:
    """Add sum_n (sum_k left_kn^T right_kn)^2."""
    offsets = products[0].offsets
    sequences, tokens = len(offsets) - 1, len(products[0].left)
    if len(products) == 1 and tokens == sequences and offsets == list(range(tokens + 1)):
        # One token each: the square of an outer product is the outer product of the squares.
        total.addmm_(products[0].left.square().t(), products[0].right.square())
    elif len(products) == 1 and total.device.type != "cpu" and len({b - a for a, b in _pairs(offsets)}) == 1:
        add_equal_lengths(total, products[0])
    else:
        _add_one_by_one(total, products)


def add_equal_lengths(total: Tensor, product: Product) -> None:
    """As :func:`add_products` for sequences of one length, several at once: what an accelerator wants."""
    sequences = len(product.offsets) - 1
    left, right = (t.unflatten(0, (sequences, -1)) for t in (product.left, product.right))
    chunk = max(1, ON_ACCELERATOR // total.numel())
    for some_left, some_right in zip(left.split(chunk), right.split(chunk), strict=True):
        total.add_(torch.bmm(some_left.transpose(1, 2), some_right).square_().sum(0))


def _add_one_by_one(total: Tensor, products: list[Product]) -> None:
    """One sequence's gradient at a time, in a buffer that stays in the cache while it is squared and added."""
    height, width = total.shape
    whole, part_of = (WHOLE, BLOCK) if total.device.type == "cpu" else (ON_ACCELERATOR, ON_ACCELERATOR)
    block = height if total.numel() <= whole else max(1, part_of // width)
    buffer = total.new_empty(min(block, height), width)
    for begin in range(0, height, block):
        part = total[begin : begin + block]
        gradient = buffer[: len(part)]
        for sequence in range(len(products[0].offsets) - 1):
            empty = True
            for product in products:
                here = slice(product.offsets[sequence], product.offsets[sequence + 1])
                if here.start == here.stop:
                    continue
                left = product.left[here, begin : begin + block].t()
                if empty:
                    torch.mm(left, product.right[here], out=gradient)
                else:
                    gradient.addmm_(left, product.right[here])
                empty = False
            if not empty:
                part.addcmul_(gradient, gradient)


def _add_rows(total: Tensor, products: list[Product], rows: list[Rows]) -> None:
    """Add what the scattered rows s change: s^2, and 2 s d where there are products with gradient d."""
    height = len(total)
    keys = torch.cat([r.sequence * height + r.index for r in rows])
    keys, place = keys.unique(return_inverse=True)
    sums = total.new_zeros(len(keys), total.shape[1]).index_add_(0, place, torch.cat([r.values for r in rows]))
    index = keys % height
    if products:
        dense = _at_rows(products, index, torch.div(keys, height, rounding_mode="floor"))
        total.index_add_(0, index, dense.mul_(2).add_(sums).mul_(sums))
    else:
        total.index_add_(0, index, sums.square_())


def _at_rows(products: list[Product], index: Tensor, sequence: Tensor) -> Tensor:
    """The products' gradients at some rows: row ``index`` (U,) of the gradient of ``sequence`` (U,), in its order."""
    sequences = len(products[0].offsets) - 1
    starts = [0, *torch.bincount(sequence, minlength=sequences).cumsum(0).tolist()]
    dense = products[0].right.new_zeros(len(index), products[0].right.shape[1])
    for product in products:
        for (a, b), (first, last) in zip(_pairs(product.offsets), _pairs(starts), strict=True):
            if a < b and first < last:
                dense[first:last].addmm_(product.left[a:b, index[first:last]].t(), product.right[a:b])
    return dense


def _pairs(offsets: list[int]) -> list[tuple[int, int]]:
    return list(zip(offsets[:-1], offsets[1:], strict=True))
