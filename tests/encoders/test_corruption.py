"""What a language model is asked: masks and spans drawn from (seed, number) alone, labels the true tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from klnorm_lib.encoders.corruption import Corruption
from tests import language


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(language.model(tmp_path_factory.mktemp("corruption") / "model"))


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory):
    tokenizer = AutoTokenizer.from_pretrained(language.model(tmp_path_factory.mktemp("corruption") / "model"))
    tokenizer.add_tokens([f"<extra_id_{i}>" for i in range(12)])
    tokenizer.eos_token = "[SEP]"
    return tokenizer


def sequence(length, seed=0):
    body = np.random.default_rng(seed).integers(5, 70, length - 2)
    return [2, *body.tolist(), 3]


def test_masks_are_a_function_of_seed_and_number(tokenizer):
    rows = [sequence(30, i) for i in range(6)]
    whole = Corruption("masked", tokenizer, seed=1)(rows, 0)
    later = Corruption("masked", tokenizer, seed=1)(rows[4:], 4)
    assert torch.equal(whole["input_ids"][4:], later["input_ids"])
    assert torch.equal(whole["labels"][4:], later["labels"])
    other = Corruption("masked", tokenizer, seed=2)(rows, 0)
    assert not torch.equal(whole["labels"], other["labels"])
    again = Corruption("masked", tokenizer, seed=1)([rows[0]] * 2, 0)
    assert not torch.equal(again["labels"][0], again["labels"][1]), "one text, two numbers, two draws"


def test_masked_tokens_are_hidden_as_bert_hides_them(tokenizer):
    ids = sequence(50_000)
    batch = Corruption("masked", tokenizer)([ids], 0)
    inputs, labels, true = batch["input_ids"][0], batch["labels"][0], torch.tensor(ids)
    chosen = labels != -100
    assert torch.equal(labels[chosen], true[chosen])
    assert torch.equal(inputs[~chosen], true[~chosen])
    assert not chosen[0]
    assert not chosen[-1]
    share = chosen.float().mean().item()
    assert abs(share - 0.15) < 5 * (0.15 * 0.85 / 50_000) ** 0.5
    hidden = (inputs[chosen] == tokenizer.mask_token_id).float().mean().item()
    same = (inputs[chosen] == true[chosen]).float().mean().item()
    count = int(chosen.sum())
    assert abs(hidden - 0.8) < 5 * (0.16 / count) ** 0.5
    assert abs(same - 0.1 - 0.1 / 85) < 5 * (0.09 / count) ** 0.5
    assert not torch.isin(inputs[chosen & (inputs != tokenizer.mask_token_id)], torch.tensor([0, 1, 2, 3])).any()


def test_at_least_one_token_is_asked_for(tokenizer):
    batch = Corruption("masked", tokenizer, 1e-6)([sequence(8, i) for i in range(5)], 0)
    assert ((batch["labels"] != -100).sum(1) == 1).all()
    with pytest.raises(ValueError, match="sequence 7 has no word"):
        Corruption("masked", tokenizer)([[2, 3]], 7)


def test_padding_is_on_the_right_and_has_no_label(tokenizer):
    batch = Corruption("masked", tokenizer)([sequence(20), sequence(12)], 0)
    assert batch["attention_mask"].sum(1).tolist() == [20, 12]
    assert batch["attention_mask"][1, :12].all()
    assert (batch["labels"][1, 12:] == -100).all()
    assert (batch["input_ids"][1, 12:] == tokenizer.pad_token_id).all()


def test_causal_labels_are_the_text(tokenizer):
    batch = Corruption("causal", tokenizer)([sequence(20), sequence(12)], 0)
    assert torch.equal(batch["labels"][0], batch["input_ids"][0])
    assert (batch["labels"][1, 12:] == -100).all()


def put_together(inputs, labels, sentinels):
    """The text again, from an input with sentinels and what stands behind them in the labels."""
    spans, here = {}, None
    for token in labels:
        if token in sentinels:
            here = token
            spans[here] = []
        else:
            spans[here].append(token)
    return [t for token in inputs for t in (spans[token] if token in sentinels else [token])]


@given(st.integers(4, 60), st.integers(0, 1000))
def test_spans_and_what_is_left_make_up_the_text(sentinels, length, index):
    ask = Corruption("seq2seq", sentinels)
    ids = sequence(length, index)
    batch = ask([ids], index)
    inputs, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    assert labels[-1] == sentinels.eos_token_id
    assert put_together(inputs, labels[:-1], set(ask.sentinels)) == ids
    missing = sum(token not in ask.sentinels for token in labels[:-1])
    assert missing == max(1, round(0.15 * (length - 2)))
    used = [token for token in inputs if token in ask.sentinels]
    assert used == ask.sentinels[: len(used)], "in order, each once"


def test_without_sentinels_the_whole_text_is_asked_for(tokenizer):
    ids = sequence(40)
    batch = Corruption("seq2seq", tokenizer)([ids], 0)
    assert batch["labels"][0].tolist() == ids
    masks = (batch["input_ids"][0] == tokenizer.mask_token_id).sum().item()
    assert masks == 2
    assert batch["input_ids"].shape[1] == 40 - round(0.15 * 38) + masks


@pytest.mark.parametrize("probability", [0.0, 1.0, -1.0])
def test_probabilities_lie_between_zero_and_one(tokenizer, probability):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Corruption("masked", tokenizer, probability)


def test_kinds_and_tokens_that_are_not_there(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="unknown kind of language model 'mask'"):
        Corruption("mask", tokenizer)
    bare = AutoTokenizer.from_pretrained(language.model(tmp_path))
    bare.mask_token = None
    for kind in ("masked", "seq2seq"):
        with pytest.raises(ValueError, match="mask token"):
            Corruption(kind, bare)
