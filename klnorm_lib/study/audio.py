"""Recordings on their way into a model: cut, normalised, and checked against the encoder before anything is trained."""

from __future__ import annotations

import numpy as np

from klnorm_lib.encoders.no_code import open_pretrained

MAX_SECONDS = 10.0


def prepare_audio(split, processor, max_seconds: float = MAX_SECONDS):
    """A split with ``audio`` (samples, float32) and ``label`` as rows that a stock ``Trainer`` takes.

    ``processor`` is the encoder's feature extractor (wav2vec 2.0, HuBERT, WavLM); the samples must be at its sampling
    rate. Clips longer than ``max_seconds`` keep their beginning. The result has ``input_values`` and ``label``;
    padding is left to the batch, where ``transformers.DataCollatorWithPadding(processor)`` also makes the attention
    mask if the encoder wants one::

        rows = prepare_audio(tasks.load("spoken_words", 60)["train"], processor)
        Trainer(model, args, train_dataset=rows, data_collator=DataCollatorWithPadding(processor)).train()

    Raises ``ValueError`` for a processor that does not take raw samples and for a ``max_seconds`` that is not positive.
    """
    import datasets

    rate = _rate(processor)
    if not max_seconds > 0:
        raise ValueError(f"max_seconds must be positive, got {max_seconds!r}")
    most = round(max_seconds * rate)
    waves = split.with_format("numpy", columns=["audio"])
    values = [
        np.asarray(processor(row["audio"][:most], sampling_rate=rate)["input_values"][0], np.float32) for row in waves
    ]
    features = {"input_values": datasets.Sequence(datasets.Value("float32")), "label": split.features["label"]}
    rows = {"input_values": values, "label": list(split["label"])}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features)).with_format("numpy")


def longer_than(split, seconds: float, rate: int) -> int:
    """How many clips of a split are longer than this."""
    return sum(len(row["audio"]) > round(seconds * rate) for row in split.with_format("numpy", columns=["audio"]))


def check_fit(task, name: str, found) -> None:
    """Raise ``ValueError`` when an audio task meets a text encoder, or a text task an audio encoder.

    ``found``: what :func:`klnorm_lib.encoders.resolve` says of the encoder called ``name``; only its configuration is
    read.
    """
    from transformers import AutoConfig, AutoModelForAudioClassification, AutoModelForSequenceClassification

    settings = type(open_pretrained(AutoConfig, found.location, revision=found.revision))
    hears = settings in AutoModelForAudioClassification._model_mapping
    reads = settings in AutoModelForSequenceClassification._model_mapping
    if task.kind == "audio" and reads and not hears:
        raise ValueError(
            f"{task.name!r} is an audio task and {name!r} is an encoder of text; choose an encoder of speech, for "
            "example klnorm-tiny-speech, or a text task of `klnorm tasks`"
        )
    if task.kind != "audio" and hears and not reads:
        raise ValueError(
            f"{task.name!r} is a text task and {name!r} is an encoder of sound; choose an encoder of text, for "
            "example klnorm-tiny, or an audio task of `klnorm tasks`"
        )


def _rate(processor) -> int:
    from klnorm_lib.tasks.audio import SAMPLING_RATE

    takes = getattr(processor, "model_input_names", ["nothing"])[0]
    if takes != "input_values" or getattr(processor, "feature_size", None) != 1:
        raise ValueError(
            f"{type(processor).__name__} takes {takes!r}, not raw samples; use an encoder of the wav2vec 2.0 family "
            "(wav2vec2, HuBERT, WavLM)"
        )
    if processor.sampling_rate != SAMPLING_RATE:
        raise ValueError(
            f"the encoder expects {processor.sampling_rate:,} Hz, tasks have {SAMPLING_RATE:,} Hz; use an encoder that "
            f"was trained at {SAMPLING_RATE:,} Hz"
        )
    return processor.sampling_rate
