"""One run, from its name to its record."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from klnorm_lib.encoders.sources import portable
from klnorm_lib.study import audio, cache, features, frozen, machine, preparing, setfit, store
from klnorm_lib.study import rows as row_scores
from klnorm_lib.study.errors import NotFiniteError
from klnorm_lib.study.progress import Reporter, show
from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import ELSEWHERE, Run, thaw


@dataclass
class _Inputs:
    """What a run needs before any training; enough to tell its hash."""

    task: Any
    data: Any
    provenance: dict[str, Any]
    encoder: Any
    method: Any
    device: str


def run(
    run: Run, records: str | Path | None = None, progress: bool = True, study: Mapping[str, Any] | None = None
) -> Record:
    """Carry out a run, or return its record if ``records`` already holds it finished.

    Data, encoder and method are loaded, the stock ``Trainer`` trains, the weights that did best on the validation
    rows are restored, and the test and out-of-domain rows are then predicted, once. With ``method="frozen"`` nothing
    of the encoder is trained, see ``klnorm_lib.study.frozen``; ``method="setfit"`` is told of in
    ``klnorm_lib.study.setfit``. The record is appended to the JSON-lines file ``records`` (``None``: kept in memory
    only). ``study`` tells what grid the run belongs to; it is kept in the record and decides nothing. The same run on
    the same machine with the same number of threads gives the same numbers.

    Raises ``ValueError`` or ``FileNotFoundError`` for an unknown task, encoder or method before anything is trained,
    and ``NotFiniteError`` if the loss becomes NaN or infinite; a failure during training is recorded before it is
    raised, and does not keep the run from being tried again.
    """
    reporter = Reporter(progress)
    started = time.perf_counter()
    inputs = _load(run)
    blank = _blank_record(run, inputs)
    blank.study = None if study is None else dict(study)
    stored = store.finished(records, blank.hash)
    if stored is not None:
        reporter.say(
            f"[green]already done[/]: {records} holds this run ({stored.hash[:12]}, {stored.created[:19]} UTC)"
        )
        return stored
    if inputs.encoder.source != "featuriser":
        audio.check_fit(inputs.task, run.encoder, inputs.encoder)
    reporter.say(_headline(run, inputs, blank))
    try:
        _fill(blank, run, inputs, reporter, started)
    except Exception as error:
        blank.status = "failed"
        step = error.step if isinstance(error, NotFiniteError) else None
        blank.error = {"type": type(error).__name__, "message": str(error)[:2000], "step": step}
        blank.time["total_seconds"] = round(time.perf_counter() - started, 3)
        if records is not None:
            store.append(records, blank)
        raise
    finally:
        reporter.stop()
    if records is not None:
        store.append(records, blank)
    return blank


def run_hash(run: Run) -> str:
    """The hash by which a finished run is found again; loads the data and looks at the weights to tell it."""
    return _blank_record(run, _load(run)).hash


def failed(run: Run, kind: str, message: str, study: Mapping[str, Any] | None = None) -> Record:
    """The record of a run that ended without one, its process having died; loads the data to tell its hash."""
    record = _blank_record(run, _load(run))
    record.study = None if study is None else dict(study)
    record.status, record.error = "failed", {"type": kind, "message": message[:2000], "step": None}
    return record


def _load(run: Run) -> _Inputs:
    from klnorm_lib import encoders, tasks

    device = machine.pick_device(run.device)
    method = _method(run)
    if run.data is not None:
        data, task, provenance = tasks.from_file(
            run.data, run.text, run.text_pair, run.label, run.audio, size=run.size, split_seed=run.split_seed
        )
    else:
        task = tasks.spec(run.task)
        wanted = (run.task, run.size, run.split_seed, run.source)
        data, provenance = cache.once(wanted, lambda: tasks.load_with_provenance(*wanted))
        provenance = copy.deepcopy(provenance)
    if not run.ood:
        data, provenance = _without_ood(data, provenance)
    regression = task.label_names is None
    for name, split in data.items():
        most = run.test_rows if name == "test" else run.ood_rows if name.startswith("ood/") else None
        if most is not None:
            data = type(data)({**data, name: _fewer_rows(split, most, regression)})
    if run.encoder in frozen.FEATURISERS:
        encoder = frozen.featuriser(run.encoder, task)
    else:
        encoder = encoders.resolve(run.encoder, run.encoder_source)
    return _Inputs(task, data, provenance, encoder, method, device)


def _without_ood(data, provenance: dict[str, Any]):
    """The splits that are not out of domain, and the same of what tells where they came from."""
    kept = {name: split for name, split in data.items() if not name.startswith("ood/")}
    sums = {name: sum_ for name, sum_ in provenance["checksums"].items() if name in kept}
    return type(data)(kept), {**provenance, "checksums": sums, **{k: {} for k in ("ood", "ood_missing")}}


def _fewer_rows(split, count: int, regression: bool):
    """A stratified sample of test rows, drawn by the seed of the out-of-domain samples: the same in every run."""
    from klnorm_lib.tasks import loading, subsets

    return split.select(subsets.sample(split["label"], count, loading.OOD_SEED, regression))


def method_fields(run: Run) -> dict[str, Any]:
    """The hyperparameters of a run's method, defaults written out; raises ``ValueError`` for one it does not have."""
    from klnorm_lib import methods

    values = thaw(methods.to_dict(_method(run)))
    values.pop("name", None)
    return values


def _method(run: Run):
    from klnorm_lib import methods

    if run.method == frozen.NAME:
        frozen.check(run)
        return frozen.build(**thaw(run.method_args))
    frozen.refuse_featuriser(run)
    if run.method == setfit.NAME:
        return setfit.build(run, **thaw(run.method_args))
    return methods.build(run.method, **_method_args(run))


def _method_args(run: Run) -> dict[str, Any]:
    """The hyperparameters given; a method with draws of its own draws by the run's seed unless told otherwise."""
    from klnorm_lib import methods

    given = thaw(run.method_args)
    together = "+" in run.method
    for name in run.method.split("+"):
        if name in methods.REGISTRY and any(f.name == "seed" for f in fields(methods.REGISTRY[name])):
            given.setdefault(f"{name}.seed" if together else "seed", run.seed)
    return given


def _method_dict(run: Run, inputs: _Inputs) -> dict[str, Any]:
    from klnorm_lib import methods

    values = thaw(methods.to_dict(inputs.method))  # `frozen` knows the same two words as a method: to_dict, version
    values.pop("name", None)
    version = 1 if inputs.method is None else inputs.method.version
    return {"name": run.method, "version": version, "fields": values, "changed": [], "added_parameters": None}


def _blank_record(run: Run, inputs: _Inputs) -> Record:
    method = _method_dict(run, inputs)
    asked = run.to_dict()
    elsewhere = ("task", "size", "split_seed", "rows")  # fields of the record already
    provenance = {key: value for key, value in inputs.provenance.items() if key not in elsewhere}
    hardware = {**machine.hardware(), "device": inputs.device}
    decides = {
        # a default written out is the same run, and the weights' checksum says more than where they were found
        "run": {k: v for k, v in asked.items() if k not in ("method_args", *ELSEWHERE)},
        "method": {key: method[key] for key in ("name", "version", "fields")},
        "data": provenance["checksums"],
        "weights": inputs.encoder.sha256 or inputs.encoder.revision,
        "device": inputs.device,
        "threads": hardware["threads"],
    }
    canonical = json.dumps(decides, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Record(
        hash=hashlib.sha256(canonical.encode()).hexdigest(),
        status="finished",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        run=asked,
        task={
            "name": inputs.task.name,
            "kind": inputs.task.kind,
            "primary_metric": inputs.task.metrics[0],
            **provenance,
        },
        encoder={**inputs.encoder.provenance(), "name": portable(run.encoder)},
        method=method,
        versions=machine.versions(),
        hardware=hardware,
        rows={name: len(split) for name, split in inputs.data.items()},
    )


def _headline(run: Run, inputs: _Inputs, record: Record) -> str:
    rows = record.rows
    return (
        f"[bold]{record.task['name']}[/] ({inputs.provenance['source']}: {rows['train']} train, "
        f"{rows['validation']} validation, {rows['test']} test)  ·  [bold]{record.encoder['name']}[/] "
        f"({inputs.encoder.source})  ·  [bold]{run.method}[/]  ·  seed {run.seed}"
    )


def _fill(record: Record, run: Run, inputs: _Inputs, reporter: Reporter, started: float) -> None:
    """Train and measure; writes the outcome into ``record``."""
    if run.method == frozen.NAME:
        begun = time.perf_counter()
        with _quiet():
            logits = frozen.fit(
                record, run, inputs.task, inputs.data, inputs.method, inputs.encoder, inputs.device, reporter
            )
        record.time["train_seconds"] = round(time.perf_counter() - begun, 3)
        _measure(record, inputs.task, logits, {name: split["label"] for name, split in inputs.data.items()})
        _finish(record, inputs, reporter, started)
        return
    from transformers import DataCollatorWithPadding, set_seed

    from klnorm_lib.study import evaluation, training

    task, regression = inputs.task, inputs.task.label_names is None
    if inputs.device == "cuda":
        machine.forget_peak_memory()
    with _quiet():
        set_seed(run.seed)
        model, processor = _model(run, task)
        rows = _rows(record, run, inputs, model, processor, reporter)
        callbacks = []
        if run.method != setfit.NAME:
            seen = preparing.Batches(rows["train"], DataCollatorWithPadding(processor), run.batch_size, inputs.device)
            callbacks = _apply(model, inputs.method, record, seen)
    if run.method == setfit.NAME:
        with _quiet(), machine.deterministic(inputs.device):
            logits = setfit.fit(record, run, task, model, processor, rows, inputs.method, inputs.device, reporter)
        _measure(record, task, logits, {name: split["label"] for name, split in rows.items()})
        _finish(record, inputs, reporter, started)
        return
    collator = DataCollatorWithPadding(processor)

    def validate(model, step: int) -> dict[str, float | None]:
        logits = evaluation.predict(model, rows["validation"], collator, step)
        return evaluation.score(task.metrics, logits, rows["validation"]["label"], regression)

    watch = training.LossWatch(_penalty if inputs.method is not None else None)
    evaluator = training.Evaluator(run, task.metrics[0], validate, watch, reporter)
    handle = model.register_forward_hook(watch)
    reporter.start(run.steps)
    begun = time.perf_counter()
    try:
        with _quiet(), machine.deterministic(inputs.device):
            training.train(run, model, processor, rows["train"], evaluator, callbacks, inputs.device)
    finally:
        handle.remove()
        record.evaluations = evaluator.history
    record.time["train_seconds"] = round(time.perf_counter() - begun, 3)
    reporter.stop()

    evaluator.restore(model)
    record.selected = evaluator.best
    record.validation = next(e for e in evaluator.history if e["step"] == evaluator.best["step"])["validation"]
    step = record.selected["step"]
    logits = {
        name: evaluation.predict(model, split, collator, step) for name, split in rows.items() if name != "validation"
    }
    _measure(record, task, logits, {name: split["label"] for name, split in rows.items()})
    _finish(record, inputs, reporter, started)


def _rows(record: Record, run: Run, inputs: _Inputs, model, processor, reporter: Reporter) -> dict[str, Any]:
    """Every split as the model takes it: token ids, or samples."""
    from klnorm_lib.study import evaluation

    task = inputs.task
    if task.kind != "audio":
        length, weights = _length(run, model, processor), inputs.encoder.sha256 or inputs.encoder.revision
        sums = record.task["checksums"]
        return {
            name: cache.once(
                # the rows kept of a split depend on their number as well
                (weights, sums[name], len(split), length),
                lambda split=split: evaluation.tokenise(processor, split, task.text_columns, length),
            )
            for name, split in inputs.data.items()
        }
    cut = {name: audio.longer_than(split, run.max_seconds, task.sampling_rate) for name, split in inputs.data.items()}
    record.task["cut"] = {name: count for name, count in cut.items() if count}
    if record.task["cut"]:
        told = ", ".join(f"{count} of {name}" for name, count in record.task["cut"].items())
        reporter.say(f"clips over {run.max_seconds:g} s, of which only the beginning is used: {told}")
    return {name: audio.prepare_audio(split, processor, run.max_seconds) for name, split in inputs.data.items()}


def _finish(record: Record, inputs: _Inputs, reporter: Reporter, started: float) -> None:
    record.memory = machine.peak_memory(inputs.device)
    record.time["total_seconds"] = round(time.perf_counter() - started, 3)
    primary, selected = record.task["primary_metric"], record.selected
    chosen = f"C = {selected['C']:g}" if "C" in selected else f"the weights of step {selected['step']}"
    reporter.say(
        f"[green]done[/] in {record.time['total_seconds']:.1f} s: test {primary} {show(record.test[primary])} "
        f"with {chosen}"
    )


def _measure(record: Record, task, logits: dict, labels: dict) -> None:
    """Metrics of train, test and out-of-domain rows, each predicted once with what was selected."""
    import numpy as np

    from klnorm_lib.study import evaluation

    regression = task.label_names is None
    for name in ("train", "test"):
        setattr(record, name, evaluation.score(task.metrics, logits[name], labels[name], regression))
    record.gap = {
        name: None if None in (record.train[name], value) else record.train[name] - value
        for name, value in record.test.items()
    }
    predicted = logits["test"][:, 0] if regression else logits["test"].argmax(-1)
    _keep_row_scores(record, "test", predicted, labels["test"])
    if not regression:
        record.calibration["test"] = evaluation.calibration(
            evaluation.softmax(logits["test"]), np.asarray(labels["test"])
        )
    for split in (name for name in logits if name.startswith("ood/")):
        name = split.removeprefix("ood/")
        if regression:
            record.ood[name] = evaluation.score(task.metrics, logits[split], labels[split], True)
            _keep_row_scores(record, split, logits[split][:, 0], labels[split])
            continue
        known = task.ood[name]
        merged = evaluation.merge(evaluation.softmax(logits[split]), known.groups)
        targets = np.array([known.target[int(label)] for label in labels[split]])
        record.ood[name] = evaluation.score_probabilities(task.metrics, merged, targets)
        record.calibration["ood"][name] = evaluation.calibration(merged, targets)
        _keep_row_scores(record, split, merged.argmax(-1), targets)


def _keep_row_scores(record: Record, split: str, predicted, labels) -> None:
    metric = record.task["primary_metric"]
    values = row_scores.scores(metric, predicted, labels)
    if values is not None:
        record.row_scores[split] = row_scores.encode(metric, values)


def _model(run: Run, task):
    from klnorm_lib import encoders

    names = None if task.label_names is None else [str(name) for name in task.label_names]
    return encoders.load(run.encoder, task.num_labels, run.encoder_source, label_names=names)


def _apply(model, method, record: Record, seen: preparing.Batches) -> list:
    from klnorm_lib import methods

    before = sum(p.numel() for p in model.parameters())
    # `plain` needs this as much as any method: without it the stock Trainer does not divide by the accumulation steps
    model.accepts_loss_kwargs = False
    several = method.methods if isinstance(method, methods.Together) else () if method is None else (method,)
    report = methods.apply(model, *preparing.prepare(several, model, seen)) if several else None
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    added = total - before if report is None else report.added_parameters
    record.parameters = {"total": total, "trainable": trainable, "added": added}
    record.method["changed"] = [] if report is None else list(report.changed)
    record.method["added_parameters"] = added
    return [] if report is None else list(report.callbacks)


def _penalty(model) -> float:
    from klnorm_lib import methods

    return float(methods.auxiliary_loss(model).detach())


def _length(run: Run, model, processor) -> int:
    """Tokens a row may have: what was asked, or what the encoder has positions for."""
    return min(run.max_length, features.longest(model, processor))


class _quiet:
    """Keeps the bars and start-up notes of the libraries below out of the way; warnings of ours still show."""

    def __enter__(self):
        import datasets
        from transformers.utils import logging

        self._level, self._bars = logging.get_verbosity(), datasets.are_progress_bars_disabled()
        self._model_bars = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        datasets.disable_progress_bars()

    def __exit__(self, *error):
        import datasets
        from transformers.utils import logging

        logging.set_verbosity(self._level)
        if self._model_bars:
            logging.enable_progress_bar()
        if not self._bars:
            datasets.enable_progress_bars()
