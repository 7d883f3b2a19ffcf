"""Decoders as they are published: without a token for padding, or padded on the left."""

import json
import warnings

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModel, CanineTokenizer, PreTrainedTokenizerFast

from klnorm_lib import encoders, study
from tests.study import small

WORDS = ["<unk>", "<|endoftext|>", "[PAD]", *sorted({*small.WORDS, "yes", "no"})]
SIZES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "qwen2": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
              "num_key_value_heads": 2},
}  # fmt: skip


def folder(place, kind, config=(), **tokens):
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = {"unk_token": "<unk>", "eos_token": "<|endoftext|>", "model_max_length": 64, **tokens}
    PreTrainedTokenizerFast(tokenizer_object=raw, **tokens).save_pretrained(place)
    ids = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": None}
    torch.manual_seed(0)
    settings = AutoConfig.for_model(kind, vocab_size=len(WORDS), **SIZES[kind], **{**ids, **dict(config)})
    AutoModel.from_config(settings).save_pretrained(place)
    return place


def logits(model, tokenizer, *texts):
    with torch.no_grad():
        return model(**tokenizer(list(texts), padding=True, return_tensors="pt")).logits


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", SIZES)
def test_the_end_of_sequence_is_taken_and_a_row_does_not_depend_on_its_neighbours(kind, side, tmp_path):
    place = str(folder(tmp_path, kind, padding_side=side))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model, tokenizer = encoders.load(place, 2)
    # transformers' own tokenizer of Qwen 2 pads with this token by itself; its model does not know
    expected = ["for padding; its end of sequence, '<|endoftext|>', is taken"] * (kind != "qwen2")
    expected += ["pads on the left"] * (side == "left")
    messages = [str(w.message) for w in told if w.category is UserWarning]
    assert len(messages) == len(expected)
    assert all(part in message for part, message in zip(expected, messages, strict=True))
    assert tokenizer.pad_token_id == model.config.pad_token_id == 1
    assert tokenizer.padding_side == "right"
    alone, beside = logits(model, tokenizer, "a film"), logits(model, tokenizer, "a film", "the book was not very good")
    torch.testing.assert_close(beside[:1], alone)


def test_the_token_of_the_configuration_comes_first_and_that_of_the_tokenizer_is_told_to_the_model(tmp_path):
    model, tokenizer = encoders.load(str(folder(tmp_path / "one", "gpt2", {"pad_token_id": 2})), 2)
    assert (tokenizer.pad_token, model.config.pad_token_id) == ("[PAD]", 2)
    for stated in (None, 0, -1):
        place = folder(tmp_path / str(stated), "llama", pad_token="[PAD]")
        settings = json.loads((place / "config.json").read_text()) | {"pad_token_id": stated}
        (place / "config.json").write_text(json.dumps(settings))
        model, tokenizer = encoders.load(str(place), 2)
        assert tokenizer.pad_token_id == model.config.pad_token_id == 2


def test_what_cannot_be_padded_names_the_file_to_edit(tmp_path):
    with pytest.raises(ValueError, match=r'"pad_token" in its tokenizer_config\.json'):
        encoders.load(str(folder(tmp_path / "none", "gpt2", eos_token=None)), 2)
    with pytest.raises(ValueError, match="has embeddings for"):
        encoders.load(str(folder(tmp_path / "new", "gpt2", pad_token="<new>")), 2)


@pytest.mark.parametrize("method", ["plain", "klnorm", "frozen", "setfit"])
def test_every_way_to_fit_takes_a_decoder_as_published(method, tmp_path, reviews):
    budget = {} if method == "frozen" else {"steps": 2, "evaluations": 1, "batch_size": 8}
    place = str(folder(tmp_path, "gpt2"))
    columns = {"data": str(reviews), "text": "words", "label": "verdict"}
    with pytest.warns(UserWarning, match="end of sequence"):
        record = study.run(study.Run(encoder=place, method=method, device="cpu", **columns, **budget), progress=False)
    assert record.status == "finished"


def test_an_encoder_of_characters_has_nothing_to_choose(tmp_path):
    config = AutoConfig.for_model(
        "canine", hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, local_transformer_stride=16, num_hash_buckets=32,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(tmp_path)
    CanineTokenizer(model_max_length=64).save_pretrained(tmp_path)
    model, tokenizer = encoders.load(str(tmp_path), 2)
    assert logits(model.eval(), tokenizer, "a b", "a longer text").shape == (2, 2)
