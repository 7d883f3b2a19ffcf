"""Hooks, torch.func and the loop give one Fisher information, on many architectures."""

import warnings

import pytest
import torch
from torch.nn import functional as F

from klnorm_lib.probes import diagonal_fisher
from klnorm_lib.probes.fisher import FisherSum
from tests.probes import language

AGREE = 1e-5


@pytest.mark.parametrize("name", language.MODELS)
def test_hooks_and_func_agree_with_the_loop(name):
    model, batches = language.build(name), language.batches(name)
    true = diagonal_fisher(model, batches, method="loop", progress=False)
    assert list(true) == [n for n, _ in model.named_parameters()]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        hooks = diagonal_fisher(model, batches, progress=False)
    func = diagonal_fisher(model, batches, method="func", progress=False)
    for way in (hooks, func):
        assert max(language.apart(way, true).values()) < AGREE
        assert all(v.dtype == torch.float32 and v.shape == true[n].shape for n, v in way.items())
    without_axis = [str(w.message) for w in said if "cannot separate" in str(w.message)]
    assert bool(without_axis) == language.MODELS[name][4]
    assert all("torch.func" in text and "no batch axis" in text for text in without_axis)


def test_the_loop_is_the_definition():
    model, batch = language.build("bert").eval(), language.batch("masked", 4, 10)
    expected = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for row in range(4):
        model.zero_grad()
        one = {k: v[row : row + 1] for k, v in batch.items()}
        logits = model(input_ids=one["input_ids"], attention_mask=one["attention_mask"]).logits
        F.cross_entropy(logits[0], one["labels"][0]).backward()
        for n, p in model.named_parameters():
            expected[n] += p.grad.square() / 4
    model.zero_grad()
    found = diagonal_fisher(model, [batch], method="loop", progress=False)
    assert max(language.apart(found, expected).values()) < AGREE


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("sizes", [(1,) * 6, (6,), (4, 2)])
def test_the_size_of_the_batches_does_not_matter(sizes, attention):
    model, batch = language.build("bert", attn_implementation=attention), language.batch("masked", 6, 10)
    true = diagonal_fisher(model, [batch], method="loop", progress=False)
    parts = zip(*(v.split(sizes) for v in batch.values()), strict=True)
    found = diagonal_fisher(model, [dict(zip(batch, part, strict=True)) for part in parts], progress=False)
    assert max(language.apart(found, true).values()) < AGREE


def test_padding_does_not_matter():
    model, batch = language.build("bert"), language.batch("masked", 4, 10)
    wider = {k: F.pad(v, (0, 4), value=-100 if k == "labels" else 0) for k, v in batch.items()}
    wider["input_ids"][:, -4:] = 7
    found, true = (diagonal_fisher(model, [b], progress=False) for b in (wider, batch))
    assert max(language.apart(found, true).values()) < AGREE


@pytest.mark.parametrize("method", ["hooks", "func", "loop"])
def test_a_loss_of_ones_own(method):
    model, batch = language.build("bert"), language.batch("masked", 4, 10)
    encoder = model.bert

    def loss(model, batch):
        """Two uses of every layer in a sequence's loss: the hidden states, and those of the sequence turned round."""
        there, back = (model(ids).last_hidden_state for ids in (batch["input_ids"], batch["input_ids"].flip(1)))
        return (there * back.sin()).sum((1, 2))

    found = diagonal_fisher(encoder, [batch], loss=loss, method=method, progress=False)
    expected = {n: torch.zeros_like(p) for n, p in encoder.named_parameters()}
    for row in range(4):
        value = loss(encoder.eval(), {k: v[row : row + 1] for k, v in batch.items()}).sum()
        for n, slope in zip(expected, torch.autograd.grad(value, list(encoder.parameters())), strict=True):
            expected[n] += slope.square() / 4
    assert max(language.apart(found, expected).values()) < AGREE


def test_the_square_of_the_batch_gradient_is_something_else():
    model, batch = language.build("bert"), language.batch("masked", 6, 10)
    true = diagonal_fisher(model, [batch], progress=False)
    model.eval()(**batch).loss.backward()
    squared = {n: p.grad.square() for n, p in model.named_parameters()}
    apart = language.apart(squared, true)
    assert sum(a > 0.3 for a in apart.values()) > 0.9 * len(apart)


def test_untied_words_are_two_tensors():
    model = language.build("bert", tie_word_embeddings=False)
    batch = language.batch("masked", 4, 10)
    hooks, true = (diagonal_fisher(model, [batch], method=m, progress=False) for m in ("hooks", "loop"))
    assert "cls.predictions.decoder.weight" in hooks
    assert "bert.embeddings.word_embeddings.weight" in hooks
    assert max(language.apart(hooks, true).values()) < AGREE


def test_tied_words_are_squared_after_their_uses_are_summed():
    tied = language.build("bert")
    untied = language.build("bert", tie_word_embeddings=False)
    untied.load_state_dict(tied.state_dict())
    batch = language.batch("masked", 4, 10)
    both, each = (diagonal_fisher(m, [batch], progress=False) for m in (tied, untied))
    words, decoder = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    assert decoder not in both
    apart = (both[words] - each[words] - each[decoder]).norm() / both[words].norm()
    assert apart > 1e-2  # what squaring each use by itself would miss


def test_half_precision_is_added_up_in_single():
    model, batch = language.build("bert").bfloat16(), language.batch("masked", 4, 10)
    found = diagonal_fisher(model, [batch] * 3, progress=False)
    true = diagonal_fisher(model.float(), [batch], progress=False)
    assert all(v.dtype == torch.float32 for v in found.values())
    weights = {n for n in true if n.endswith("weight")}
    apart = language.apart(found, true)
    assert max(apart[n] for n in weights) < 0.1  # three significant digits of activations, squared and summed


def test_half_precision_that_loses_small_gradients_is_told():
    model, batch = language.build("bert"), language.batch("masked", 4, 10)
    true = diagonal_fisher(model, [batch], progress=False)
    with pytest.warns(UserWarning, match="float16, where gradients below 6e-8 are lost"):
        found = diagonal_fisher(model.half(), [batch], progress=False)
    apart = language.apart(found, true)
    assert max(a for n, a in apart.items() if not n.endswith("key.bias")) < 0.01


@pytest.mark.parametrize("method", ["hooks", "func", "loop"])
def test_double_precision_is_kept_until_the_end(method):
    """So that what is tiny but no rounding is not lost in it."""
    model, batch = language.build("bert").double(), language.batch("masked", 4, 10)
    with FisherSum(model, method=method) as fisher:
        fisher.add(batch)
        sums, found = fisher.sums, fisher.mean()
    assert all(v.dtype == torch.float64 for v in sums.values())
    assert all(v.dtype == torch.float32 for v in found.values())
    keys = [v for n, v in sums.items() if n.endswith("key.bias")]
    assert all(v.max() < 1e-28 for v in keys), "zero but for the rounding of doubles"


@pytest.mark.parametrize("method", ["hooks", "func", "loop"])
def test_sums_begin_anew(method):
    model, (first, second) = language.build("deberta-v2"), language.batches("deberta-v2")
    with FisherSum(model, method=method) as fisher:
        fisher.prepare(first)
        fisher.add(first)
        fisher.clear()
        assert fisher.sequences == 0
        assert not any(v.any() for v in fisher.sums.values())
        fisher.add(second)
        found = fisher.mean()
    true = diagonal_fisher(model, [second], method="loop", progress=False)
    assert max(language.apart(found, true).values()) < AGREE


@pytest.mark.parametrize("method", ["hooks", "func", "loop"])
def test_sums_can_be_taken_batch_by_batch(method):
    model, batches = language.build("gpt2"), language.batches("gpt2")
    with FisherSum(model, method=method) as fisher:
        losses = [fisher.add(batch) for batch in batches]
        assert fisher.sequences == sum(len(part) for part in losses) == 8
        found = fisher.mean()
    true = diagonal_fisher(model, batches, method="loop", progress=False)
    assert max(language.apart(found, true).values()) < AGREE
    with torch.no_grad():
        expected = model.eval()(**batches[0]).loss
    counts = (batches[0]["labels"][:, 1:] != -100).sum(1)
    assert torch.isclose((losses[0] * counts).sum() / counts.sum(), expected)
