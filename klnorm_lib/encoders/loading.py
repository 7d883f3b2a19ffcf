"""An encoder with a fresh classification head, and the processor that prepares its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from klnorm_lib.encoders import padding
from klnorm_lib.encoders.no_code import open_pretrained
from klnorm_lib.encoders.sources import resolve


def load(name: str, num_labels: int, source: str = "auto", label_names: Sequence[str] | None = None, **config):
    """``(model, processor)`` for classification of text or audio; ``num_labels=1`` without names is regression.

    ``name``, ``source``: see :func:`klnorm_lib.encoders.resolve`. ``config``: overrides of the configuration
    (``attn_implementation``, dropout rates). Weights are float32, from safetensors only, no remote code. The head
    is drawn from torch's global generator: seed it first. ``model.klnorm_source`` tells where the weights are from.
    A tokenizer without a token for padding gets one, see :func:`klnorm_lib.encoders.padding.settle`. Raises what
    ``resolve`` raises, and ``ValueError`` for labels below 1, names that do not fit, a corrupt or
    truncated checkpoint, or an encoder without a classification class.
    """
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModelForAudioClassification,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    if num_labels < 1:
        raise ValueError(f"num_labels must be at least 1 (1 = regression), got {num_labels}")
    if label_names is not None and len(label_names) != num_labels:
        raise ValueError(f"{len(label_names)} label names for {num_labels} labels; give one name a label")
    found = resolve(name, source)
    labels = {}
    if label_names is not None:
        labels = {"id2label": dict(enumerate(label_names)), "label2id": {n: i for i, n in enumerate(label_names)}}
    if num_labels == 1:
        labels["problem_type"] = "regression"
    try:
        settings = open_pretrained(
            AutoConfig, found.location, revision=found.revision, num_labels=num_labels, **labels, **config
        )
        audio = type(settings) in AutoModelForAudioClassification._model_mapping
        if not audio and type(settings) not in AutoModelForSequenceClassification._model_mapping:
            raise ValueError(f"{name} ({settings.model_type}) has no classification class in transformers")
        auto = AutoModelForAudioClassification if audio else AutoModelForSequenceClassification
        model = (
            auto.from_config(settings, dtype=torch.float32, trust_remote_code=False)
            if found.random
            else _quietly(auto, found, settings)
        )
        processor = open_pretrained(
            AutoFeatureExtractor if audio else AutoTokenizer, found.location, revision=found.revision
        )
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise ValueError(f"checkpoint of {name} is corrupt or truncated ({error}); fetch it again") from error
        raise
    if not audio:
        padding.settle(model, processor, name)
    model.klnorm_source = found
    return model.eval(), processor


def _quietly(auto, found, settings):
    """The pretrained model; that its head is new is the point, not news."""
    from transformers import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return open_pretrained(
            auto, found.location, revision=found.revision, config=settings, dtype=torch.float32, use_safetensors=True
        )
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
