"""The memory that the Fisher information needs does not grow with the number of batches, and is not B gradients."""

import pytest
import torch
import transformers as hf

from klnorm_lib.probes import cost, diagonal_fisher
from klnorm_lib.probes.fisher import squares
from tests.probes import language

ROWS = 24


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    shape = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=192)
    return hf.BertForMaskedLM(hf.BertConfig(vocab_size=2000, max_position_embeddings=16, **shape))


def batches(number):
    for seed in range(number):
        yield language.batch("masked", ROWS, 8, seed)


def peak(model, number, method="hooks"):
    return cost.peak_bytes(lambda: diagonal_fisher(model, batches(number), method=method, progress=False))


def test_memory_does_not_grow_with_the_number_of_batches(model):
    once, often = peak(model, 2), peak(model, 8)
    assert often < 1.02 * once


def test_memory_is_far_below_a_gradient_for_every_sequence(model):
    gradients = 4 * ROWS * sum(p.numel() for p in model.parameters())
    assert peak(model, 1) < gradients / 3
    assert peak(model, 1, method="func") > gradients  # the same count sees what torch.func holds


def test_a_vocabulary_is_squared_in_blocks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(12, n, generator=generator) for n in (50, 6))
    product = squares.Product(left, right, [0, 5, 5, 12])
    rows = squares.Rows(
        torch.randint(50, (9,), generator=generator),
        torch.randn(9, 6, generator=generator),
        torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2]),
    )
    expected = torch.zeros(50, 6)
    for n, (a, b) in enumerate(((0, 5), (5, 5), (5, 12))):
        mine = rows.sequence == n
        one = left[a:b].T @ right[a:b]
        expected += one.index_add(0, rows.index[mine], rows.values[mine]).square()
    for whole, block in ((2**20, 2**18), (1, 6 * 7), (1, 1)):
        monkeypatch.setattr(squares, "WHOLE", whole)
        monkeypatch.setattr(squares, "BLOCK", block)
        total = torch.zeros(50, 6)
        squares.add_squares(total, [product], [rows])
        torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at_once", [2**26, 50 * 6 * 2, 1])
def test_the_accelerators_way_of_multiplying_gives_the_same(monkeypatch, at_once):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(15, n, generator=generator) for n in (50, 6))
    product = squares.Product(left, right, [0, 3, 6, 9, 12, 15])
    one_by_one, several = torch.zeros(50, 6), torch.zeros(50, 6)
    monkeypatch.setattr(squares, "ON_ACCELERATOR", at_once)
    squares.add_products(one_by_one, [product])
    squares.add_equal_lengths(several, product)
    torch.testing.assert_close(several, one_by_one, rtol=1e-5, atol=1e-5)
