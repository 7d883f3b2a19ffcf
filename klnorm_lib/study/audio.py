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
    """Raise ``ValueError`` when an audio task meets a text encoder or one of filter banks, or a text task an audio one.

    ``found``: what :func:`klnorm_lib.encoders.resolve` says of the encoder called ``name``; only its configuration is
    read, and of an encoder of sound that of its feature extractor.
    """
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModelForAudioClassification,
        AutoModelForSequenceClassification,
    )

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
    if task.kind == "audio" and hears:
        _rate(open_pretrained(AutoFeatureExtractor, found.location, revision=found.revision))


def _rate(processor) -> int:
    from klnorm_lib.tasks.audio import SAMPLING_RATE

    takes, rate = getattr(processor, "model_input_names", ["nothing"])[0], getattr(processor, "sampling_rate", None)
    shape = _shape_made(processor, takes, rate) if takes == "input_values" and rate else None
    if shape is None or shape != (round(rate),):
        what = f"filter banks of shape {shape} as {takes!r}" if shape else repr(takes)
        raise ValueError(
            f"{type(processor).__name__} takes {what}, not raw samples; use an encoder of the wav2vec 2.0 family "
            "(wav2vec2, HuBERT, WavLM), or train this one in a script of your own with klnorm_lib.apply"
        )
    if rate != SAMPLING_RATE:
        raise ValueError(
            f"the encoder expects {rate:,} Hz, tasks have {SAMPLING_RATE:,} Hz; use an encoder that was trained at "
            f"{SAMPLING_RATE:,} Hz"
        )
    return rate


def _shape_made(processor, name: str, rate: float) -> tuple[int, ...] | None:
    """The shape that one second of sound has for the model; ``None`` where the processor takes no sound."""
    second = np.sin(np.arange(round(rate), dtype=np.float32))
    try:
        return np.shape(processor(second, sampling_rate=rate)[name][0])
    except (TypeError, ValueError, KeyError):
        return None
