"""Padding of texts for a classifier: which token, and on which side, where a checkpoint leaves that open."""

from __future__ import annotations

import inspect
import warnings
from typing import Any


def settle(model: Any, tokenizer: Any, name: str) -> None:
    """Have tokenizer and model agree on the token of padding, and pad decoders on the right.

    A tokenizer without one takes the token that the model's configuration names, else its end of sequence, which a
    ``UserWarning`` says. Decoders (GPT-2, Llama, Qwen) classify the last token that is not padding, which they find by
    ``config.pad_token_id``; absolute positions are right only if padding stands behind the text. ``name``: of the
    encoder, for messages. Raises ``ValueError`` for a tokenizer that has neither token, and for one whose padding has
    no embedding.
    """
    config = model.config.get_text_config()
    if not hasattr(config, "vocab_size") or not hasattr(config, "pad_token_id"):
        return  # CANINE hashes characters, Perceiver reads bytes: their configurations leave nothing open
    if tokenizer.pad_token is None:
        _choose(config, tokenizer, name)
    if tokenizer.pad_token_id >= config.vocab_size:
        raise ValueError(
            f"the tokenizer of {name} pads with {tokenizer.pad_token!r}, token {tokenizer.pad_token_id}, and the model "
            f'has embeddings for {config.vocab_size} tokens; name a token that it has as "pad_token" in its '
            "tokenizer_config.json"
        )
    decoder, stated = _is_decoder(model, config), config.pad_token_id
    if stated is None or not 0 <= stated < config.vocab_size or (decoder and stated != tokenizer.pad_token_id):
        for each in (model.config, config):
            each.pad_token_id = tokenizer.pad_token_id
    if decoder and tokenizer.padding_side != "right":
        tokenizer.padding_side = "right"
        warnings.warn(
            f"the tokenizer of {name} pads on the left, for generation; texts to classify are padded on the right",
            stacklevel=3,
        )


def _choose(config: Any, tokenizer: Any, name: str) -> None:
    stated = config.pad_token_id
    if stated is not None and 0 <= stated < min(config.vocab_size, len(tokenizer)):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(stated)
        return
    if tokenizer.eos_token is None:
        raise ValueError(
            f"the tokenizer of {name} has no token for padding and none for the end of sequence, so texts of different "
            'lengths make no batch; name a token of its vocabulary as "pad_token" in its tokenizer_config.json'
        )
    tokenizer.pad_token = tokenizer.eos_token
    warnings.warn(
        f"the tokenizer of {name} has no token for padding; its end of sequence, {tokenizer.eos_token!r}, is taken",
        stacklevel=4,
    )


def _is_decoder(model: Any, config: Any) -> bool:
    """Whether the classifier reads the last token that is not padding; XLNet, padded on the left, has its own rule."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    if getattr(config, "is_encoder_decoder", False) or config.model_type == "xlnet":
        return False
    if "last_non_pad_token" in inspect.unwrap(type(model).forward).__code__.co_varnames:
        return True  # also of a type that is in neither mapping
    return (
        type(config) in AutoModelForCausalLM._model_mapping and type(config) not in AutoModelForMaskedLM._model_mapping
    )
