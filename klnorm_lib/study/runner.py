"""One run, from its name to its record."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from klnorm_lib.encoders.sources import portable
from klnorm_lib.study import audio, machine, store
from klnorm_lib.study.errors import NotFiniteError
from klnorm_lib.study.hashing import hash_of
from klnorm_lib.study.inputs import Inputs, load
from klnorm_lib.study.measuring import measure
from klnorm_lib.study.progress import Reporter, show
from klnorm_lib.study.quiet import quiet
from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import Run

ELSEWHERE_IN_THE_RECORD = ("task", "size", "split_seed", "rows")  # of what a task says of its origin


def run(
    run: Run, records: str | Path | None = None, progress: bool = True, study: Mapping[str, Any] | None = None
) -> Record:
    """Carry out a run, or return its record if ``records`` already holds it finished.

    Data, encoder and method are loaded, the fit that the method asks for (see ``klnorm_lib.study.fits``) trains and
    chooses by the validation rows, and the test and out-of-domain rows are predicted once with what was chosen: for
    fine-tuning, the stock ``Trainer`` trains and the best weights are restored. The record is appended to the
    JSON-lines file ``records`` (``None``: kept in memory only). ``study`` says what grid the run belongs to; it is
    kept in the record and decides nothing. The same run on the same machine with the same number of threads gives the
    same numbers.

    Raises ``ValueError`` or ``FileNotFoundError`` for an unknown task, encoder or method before anything is trained,
    and ``NotFiniteError`` if the loss becomes NaN or infinite; a failure during training is recorded before it is
    raised, and does not keep the run from being tried again. Raises ``OSError`` before anything is loaded where
    ``records`` cannot be written, and ``NotWrittenError``, which has the record, where it could not any more.
    """
    reporter = Reporter(progress)
    started = time.perf_counter()
    if records is not None:
        store.check_path(records)
    inputs = load(run)
    record = _blank_record(inputs, study)
    stored = next(filter(None, (store.finished(records, hash) for hash in _hashes(inputs))), None)
    if stored is not None:
        reporter.say(
            f"[green]already done[/]: {records} holds this run ({stored.hash[:12]}, {stored.created[:19]} UTC)"
        )
        return stored
    if inputs.encoder.source != "featuriser":
        audio.check_fit(inputs.task, run.encoder, inputs.encoder)
    reporter.say(_headline(inputs, record))
    try:
        with quiet():
            logits = inputs.fit.fit(inputs, record, reporter)
        measure(record, inputs.task, logits, {name: split["label"] for name, split in inputs.data.items()})
        record.memory = machine.peak_memory(inputs.device)
        record.time["total_seconds"] = round(time.perf_counter() - started, 3)
        reporter.say(_outcome(record))
    except Exception as error:
        record.status = "failed"
        step = error.step if isinstance(error, NotFiniteError) else None
        record.error = {"type": type(error).__name__, "message": str(error)[:2000], "step": step}
        record.time["total_seconds"] = round(time.perf_counter() - started, 3)
        if records is not None:
            _append_failure(records, record)
        raise
    finally:
        reporter.stop()
    if records is None:
        return record
    kept = store.append(records, record)
    if kept is not record:
        reporter.say(
            f"[green]already done[/]: while this run was under way, another process recorded it in {records} "
            f"({kept.hash[:12]}); its record is kept, this one is not added"
        )
    return kept


def _append_failure(records: str | Path, record: Record) -> None:
    try:
        store.append(records, record)
    except OSError as error:  # what made the run fail is what must be raised
        warnings.warn(f"the failure was not recorded: {error}", stacklevel=3)


def run_hash(run: Run) -> str:
    """The hash that a run's record gets; loads the data and looks at the weights for it."""
    return _hashes(load(run))[0]


def run_hashes(run: Run) -> list[str]:
    """The hashes by which a finished run is found again: its own, and the one that the first records had for it."""
    return _hashes(load(run))


def failed(run: Run, kind: str, message: str, study: Mapping[str, Any] | None = None) -> Record:
    """The record of a run that ended without one, its process having died; loads the data for its hash."""
    record = _blank_record(load(run), study)
    record.status, record.error = "failed", {"type": kind, "message": message[:2000], "step": None}
    return record


def _hashes(inputs: Inputs) -> list[str]:
    values, method, checksums = inputs.run.to_dict(), _method(inputs), inputs.provenance["checksums"]
    weights = dict.fromkeys([inputs.weights, inputs.earlier_weights or inputs.weights])
    return [hash_of(values, method, checksums, one, inputs.device, machine.threads()) for one in weights]


def _method(inputs: Inputs) -> dict[str, Any]:
    fit = inputs.fit
    return {"name": inputs.run.method, "version": fit.version, "fields": fit.hyperparameters()}


def _blank_record(inputs: Inputs, study: Mapping[str, Any] | None = None) -> Record:
    run, task = inputs.run, inputs.task
    provenance = {key: value for key, value in inputs.provenance.items() if key not in ELSEWHERE_IN_THE_RECORD}
    return Record(
        hash=_hashes(inputs)[0],
        status="finished",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        run=run.to_dict(),
        task={"name": task.name, "kind": task.kind, "primary_metric": task.metrics[0], **provenance},
        encoder={
            **inputs.encoder.provenance(),
            "name": portable(run.encoder),
            "files": inputs.encoder.files(),  # outside the hash, which the first records have without it
        },
        method={**_method(inputs), "changed": [], "added_parameters": None},
        versions=machine.versions(),
        hardware={**machine.hardware(), "device": inputs.device},
        rows={name: len(split) for name, split in inputs.data.items()},
        study=None if study is None else dict(study),
    )


def _headline(inputs: Inputs, record: Record) -> str:
    rows = record.rows
    return (
        f"[bold]{record.task['name']}[/] ({inputs.provenance['source']}: {rows['train']} train, "
        f"{rows['validation']} validation, {rows['test']} test)  ·  [bold]{record.encoder['name']}[/] "
        f"({inputs.encoder.source})  ·  [bold]{inputs.run.method}[/]  ·  seed {inputs.run.seed}"
    )


def _outcome(record: Record) -> str:
    primary, selected = record.task["primary_metric"], record.selected
    chosen = f"C = {selected['C']:g}" if "C" in selected else f"the weights of step {selected['step']}"
    return (
        f"[green]done[/] in {record.time['total_seconds']:.1f} s: test {primary} {show(record.test[primary])} "
        f"with {chosen}"
    )
