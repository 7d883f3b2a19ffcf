"""The loss of every sequence of a batch by itself, (B,): the mean over its labelled tokens, or that of its label."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from klnorm_lib.sites.walk import unwrap

Loss = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
IGNORED = -100
PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
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
        "classification of images": auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    }
    inner = bare(model)
    for ancestor in type(inner).__mro__:
        kinds = [kind for kind, names in lists.items() if ancestor.__name__ in _classes(names)]
        if "seq2seq" in kinds:  # some are listed as masked language models as well
            kinds = ["seq2seq"] if getattr(inner.config, "is_encoder_decoder", False) else kinds
        if kinds:
            return kinds[0].split()[0]
    raise ValueError(
        f"no loss is defined for {type(inner).__name__}; supported are masked, causal and sequence-to-sequence "
        "language models and classifiers of sequences, sound or images of transformers. Give loss=, a function "
        "(model, batch) -> (B,)"
    )


def _classes(names: Mapping[str, str | tuple[str, ...]]) -> set[str]:
    """The classes of a list of transformers, where a model type may have several."""
    return {cls for value in names.values() for cls in ((value,) if isinstance(value, str) else value)}


def problem_of(model: nn.Module, labels: Tensor) -> str:
    """What a classifier's labels are: "regression", "single_label" or "multi_label", as transformers has it.

    By the config's ``problem_type``; without one: regression for one output, one label a row for whole numbers, several
    for other numbers or more than one number a row.
    """
    config = bare(model).config
    given = getattr(config, "problem_type", None)
    if given is not None:
        if given not in PROBLEMS:
            raise ValueError(
                f"model.config.problem_type is {given!r}; it must be one of {', '.join(PROBLEMS)}, or None"
            )
        return given.removesuffix("_classification")
    if config.num_labels == 1:
        return "regression"
    several = labels.dim() > 1 and labels.shape[1:].numel() > 1
    return "multi_label" if several or labels.is_floating_point() else "single_label"


def inputs_of(kind: str, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the model is called with: the batch without labels; decoder inputs are made from the labels if not there."""
    inputs = {k: v for k, v in batch.items() if k not in NOT_INPUTS}
    if kind == "seq2seq" and "decoder_input_ids" not in inputs:
        inputs["decoder_input_ids"] = bare(model).prepare_decoder_input_ids_from_labels(labels=batch["labels"])
    if kind in ("causal", "seq2seq"):
        inputs["use_cache"] = False
    if getattr(getattr(bare(model), "config", None), "return_dict", True) is False:
        inputs["return_dict"] = True
    return inputs


def loss_for(kind: str) -> Loss:
    """The loss of ``kind`` as a function (model, batch) -> (B,), in float32 (float64 for such a model).

    ``batch["labels"]`` is -100 where ignored. Language models: mean cross-entropy over the labelled tokens of the
    sequence (causal: of the next token). Classification: as transformers has it: squared error for one output,
    cross-entropy for integer labels, mean binary cross-entropy over the outputs for several labels.
    """
    return classification_loss if kind == "classification" else lambda model, batch: token_loss(kind, model, batch)


def token_loss(kind: str, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy over the labelled tokens of every sequence, (B,)."""
    logits, labels = model(**inputs_of(kind, model, batch)).logits, batch["labels"].long()
    if logits.shape[:2] != labels.shape:
        raise ValueError(f"labels of shape {tuple(labels.shape)} for logits of {tuple(logits.shape[:2])} tokens")
    if kind == "causal":
        logits, labels = logits[:, :-1], labels[:, 1:]
    each = F.cross_entropy(wide(logits).transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return each.sum(1) / (labels != IGNORED).sum(1)


def classification_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The loss of every row's label, (B,); 0 for -100."""
    logits, labels = wide(model(**inputs_of("classification", model, batch)).logits), batch["labels"]
    problem = problem_of(model, labels)
    if problem == "regression":
        return (logits - labels.view(logits.shape).to(logits.dtype)).square().mean(1)
    if problem == "multi_label":
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(1)
    return F.cross_entropy(logits, labels.reshape(-1).long(), ignore_index=IGNORED, reduction="none")


def wide(x: Tensor) -> Tensor:
    """In float32, or wider if it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def bare(model: nn.Module) -> nn.Module:
    """The transformers model inside of its wrappers, or the model itself where there is none."""
    try:
        return unwrap(model)
    except TypeError:
        return model
