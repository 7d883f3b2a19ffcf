"""The loss of every sequence of a batch by itself, (B,): the mean over its labelled tokens, or that of its label."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Loss = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
IGNORED = -100
NOT_INPUTS = ("labels", "label", "sentence_order_label", "next_sentence_label")


def kind_of(model: nn.Module) -> str:
    """Which loss a transformers model is trained with: "masked", "causal", "seq2seq" or "classification".

    By the class (or what it inherits from, so that a model changed by a method is recognised) in transformers'
    own lists of model classes. Raises ``ValueError`` for any other model: it needs a loss of its own.
    """
    from transformers.models.auto import modeling_auto as auto

    lists = {
        "masked": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "seq2seq": auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        "causal": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "classification": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "classification of sound": auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    }
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft
    for ancestor in type(inner).__mro__:
        kinds = [kind for kind, names in lists.items() if ancestor.__name__ in set(names.values())]
        if "seq2seq" in kinds:  # some are listed as masked language models as well
            kinds = ["seq2seq"] if getattr(inner.config, "is_encoder_decoder", False) else kinds
        if kinds:
            return kinds[0].split()[0]
    raise ValueError(
        f"no loss is defined for {type(inner).__name__}; supported are masked, causal and sequence-to-sequence "
        "language models and classifiers of sequences or sound of transformers. Give loss=, a function "
        "(model, batch) -> (B,)"
    )


def has_label(kind: str, batch: Mapping[str, Tensor]) -> Tensor:
    """(B,) booleans: sequences with at least one labelled token that the loss of ``kind`` counts."""
    labels = batch["labels"]
    if kind == "causal":
        labels = labels[:, 1:]
    if kind == "classification":
        return torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    return (labels != IGNORED).flatten(1).any(1)


def inputs_of(kind: str, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the model is called with: the batch without labels; decoder inputs are made from the labels if not there."""
    inputs = {k: v for k, v in batch.items() if k not in NOT_INPUTS}
    if kind == "seq2seq" and "decoder_input_ids" not in inputs:
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        inputs["decoder_input_ids"] = inner.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
    if kind in ("causal", "seq2seq"):
        inputs["use_cache"] = False
    return inputs


def loss_for(kind: str) -> Loss:
    """The loss of ``kind`` as a function (model, batch) -> (B,), in float32; ``batch["labels"]`` is -100 where ignored.

    Language models: mean cross-entropy over the labelled tokens of the sequence (causal: of the next token).
    Classification: as transformers has it: squared error for one output, cross-entropy for integer labels, mean
    binary cross-entropy over the outputs for several labels.
    """
    return classification_loss if kind == "classification" else lambda model, batch: token_loss(kind, model, batch)


def token_loss(kind: str, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy over the labelled tokens of every sequence, (B,)."""
    logits, labels = model(**inputs_of(kind, model, batch)).logits, batch["labels"]
    if kind == "causal":
        logits, labels = logits[:, :-1], labels[:, 1:]
    each = F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return each.sum(1) / (labels != IGNORED).sum(1)


def classification_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The loss of every row's label, (B,)."""
    logits, labels = model(**inputs_of("classification", model, batch)).logits.float(), batch["labels"]
    config = model.config
    problem = getattr(config, "problem_type", None)
    if problem == "regression" or (problem is None and config.num_labels == 1):
        return (logits - labels.view(logits.shape).float()).square().mean(1)
    if labels.dim() > 1 or problem == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").mean(1)
    return F.cross_entropy(logits, labels, reduction="none")
