"""A model that is to be trained, and every split as it takes it; for the fits that train by gradient steps."""

from __future__ import annotations

from typing import Any

from klnorm_lib.study import audio, audio_masking, cache, evaluation, features, machine
from klnorm_lib.study.inputs import Inputs
from klnorm_lib.study.progress import Reporter
from klnorm_lib.study.record import Record


def model_and_rows(inputs: Inputs, record: Record, reporter: Reporter) -> tuple[Any, Any, dict[str, Any]]:
    """The model with a new head, initialised by the run's seed, its processor, and split -> token ids or samples."""
    from transformers import set_seed

    from klnorm_lib import encoders

    run, task = inputs.run, inputs.task
    if inputs.device == "cuda":
        machine.forget_peak_memory()
    set_seed(run.seed)
    names = None if task.label_names is None else [str(name) for name in task.label_names]
    settings = {} if run.spec_augment else {"apply_spec_augment": False}
    model, processor = encoders.load(run.encoder, task.num_labels, run.encoder_source, names, **settings)
    rows = _recordings if task.kind == "audio" else _texts
    return model, processor, rows(inputs, model, processor, record, reporter)


def _texts(inputs: Inputs, model, processor, record: Record, reporter: Reporter) -> dict[str, Any]:
    length = min(inputs.run.max_length, features.longest(model, processor))
    checksums = inputs.provenance["checksums"]
    return {
        name: cache.once(
            # the rows kept of a split depend on their number as well
            (inputs.weights, checksums[name], len(split), length),
            lambda split=split: evaluation.tokenise(processor, split, inputs.task.text_columns, length),
        )
        for name, split in inputs.data.items()
    }


def _recordings(inputs: Inputs, model, processor, record: Record, reporter: Reporter) -> dict[str, Any]:
    from transformers import DataCollatorWithPadding

    most, rate = inputs.run.max_seconds, inputs.task.sampling_rate
    longer = {name: audio.longer_than(split, most, rate) for name, split in inputs.data.items()}
    cut = record.task["cut"] = {name: count for name, count in longer.items() if count}
    if cut:
        counts = ", ".join(f"{count} of {name}" for name, count in cut.items())
        reporter.say(f"clips over {most:g} s, of which only the beginning is used: {counts}")
    rows = {name: audio.prepare_audio(split, processor, most) for name, split in inputs.data.items()}
    part = inputs.run.batch_size // inputs.run.gradient_accumulation
    share = audio_masking.check(model, rows["train"], DataCollatorWithPadding(processor), part)
    if share:
        record.encoder["masked_share"] = round(share, 4)
        reporter.say(
            f"SpecAugment hides {share:.0%} of the frames of the training clips; --no-spec-augment turns it off"
        )
    return rows
