"""What a pretrained text encoder predicts: words for a gap, and words whose vectors are alike."""

from __future__ import annotations

from functools import cache

import torch

from klnorm_lib.encoders.no_code import open_pretrained
from klnorm_lib.encoders.sources import resolve

GAP = "___"


@cache
def _model(name: str):
    from transformers import AutoModelForMaskedLM, AutoTokenizer
    from transformers.utils import logging

    found = resolve(name)
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model = open_pretrained(AutoModelForMaskedLM, found.location, revision=found.revision, dtype=torch.float32)
        return model.eval(), open_pretrained(AutoTokenizer, found.location, revision=found.revision)
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def fill(name: str, sentence: str, top: int = 5) -> list[tuple[str, float]]:
    """The ``top`` likeliest word pieces for the gap ``___`` of a sentence, with their probabilities.

    ``name``: an encoder with a masked-language-model head. Raises ``ValueError`` unless the sentence has one gap.
    """
    if sentence.count(GAP) != 1:
        raise ValueError(f"the sentence needs one gap {GAP!r}, got {sentence!r}")
    model, tokenizer = _model(name)
    batch = tokenizer(sentence.replace(GAP, tokenizer.mask_token), return_tensors="pt")
    position = int((batch["input_ids"][0] == tokenizer.mask_token_id).nonzero())
    with torch.no_grad():
        probabilities = model(**batch).logits[0, position].softmax(-1)
    best = probabilities.topk(top)
    words = tokenizer.convert_ids_to_tokens(best.indices.tolist())
    return list(zip(words, best.values.tolist(), strict=True))


def neighbours(name: str, word: str, top: int = 5) -> list[tuple[str, float]]:
    """The ``top`` whole words whose input embeddings have the largest cosine with that of ``word``.

    Only words of letters, three or more, count. Raises ``ValueError`` when ``word`` is not one piece of the vocabulary.
    """
    model, tokenizer = _model(name)
    vocabulary = tokenizer.get_vocab()
    if word not in vocabulary:
        raise ValueError(f"{word!r} is not a word of the vocabulary of {name}; choose a frequent word in lower case")
    words = sorted(w for w in vocabulary if w.isalpha() and len(w) > 2 and w != word)
    vectors = torch.nn.functional.normalize(model.get_input_embeddings().weight.detach(), dim=-1)
    cosines = vectors[[vocabulary[w] for w in words]] @ vectors[vocabulary[word]]
    best = cosines.topk(top)
    return [(words[i], value) for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
