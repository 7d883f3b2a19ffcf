"""What a run is: the fields that decide its numbers, and nothing else."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from klnorm_lib.encoders.sources import LEARNING_RATE, learning_rate, portable
from klnorm_lib.study.fit_protocol import fit_of
from klnorm_lib.study.plain import FrozenArgs, to_plain

SOURCES = ("auto", "hub", "mirror", "built-in")
SCHEDULES = ("linear", "constant", "cosine")
# fields that came after the first committed records
LATER = ("ood", "max_seconds", "test_rows", "audio", "ood_rows", "quiet", "spec_augment")
ELSEWHERE = ("source", "encoder_source", "device")  # fields that differ from machine to machine
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Run:
    """One fine-tuning run: everything that decides its numbers, apart from the machine.

    ``task`` and ``size`` name the labelled rows (``size`` counts all of them, the fifth kept for validation included),
    ``split_seed`` the sample of rows, ``seed`` the head, the order of rows, the dropout masks and, unless
    ``method_args`` has a seed of its own, what the method draws at set-up. The budget is ``steps`` optimiser steps of
    ``batch_size`` rows, the same for every method; ``gradient_accumulation`` computes each step in so many equal parts.
    ``evaluations`` is how often the validation rows are looked at, evenly spaced, the last time after the last step.
    ``max_length`` (tokens) is for texts, ``max_seconds`` for recordings: longer ones keep their
    beginning. ``ood=False`` leaves the out-of-domain rows alone; ``test_rows`` tests on so many rows at
    most, a stratified sample that is the same for every seed (``None``: on all, as published), ``ood_rows`` does the
    same for each out-of-domain set.
    ``data``, ``text``, ``text_pair`` and ``label`` name a file of your own and its columns, and ``task`` is left out;
    ``audio`` instead of ``text`` names a column of paths of sound files, ``quiet`` the labels whose recordings may be
    silent. ``spec_augment``: whether frames of a recording are hidden at random in training as the encoder's
    configuration says (the default; stock ones hide 37 % of a clip of 1 s, the shipped speech encoder nothing).

    Raises ``ValueError`` for a field out of range, naming it.
    """

    task: str | None = None
    encoder: str = "klnorm-tiny"
    method: str = "plain"
    size: int | None = None
    split_seed: int = 0
    seed: int = 0
    method_args: Mapping[str, Any] = field(default_factory=FrozenArgs)
    source: str = "auto"
    encoder_source: str = "auto"
    steps: int = 200
    batch_size: int = 16
    gradient_accumulation: int = 1
    learning_rate: float = LEARNING_RATE
    weight_decay: float = 0.0
    warmup_ratio: float = 0.0
    schedule: str = "linear"
    max_grad_norm: float = 1.0
    max_length: int = 128
    evaluations: int = 5
    precision: str = "fp32"
    device: str = "auto"
    data: str | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    ood: bool = True
    max_seconds: float = 10.0
    test_rows: int | None = None
    audio: str | None = None
    ood_rows: int | None = None
    quiet: tuple[str, ...] | None = None
    spec_augment: bool = True

    def __post_init__(self) -> None:
        for name in ("encoder", "data"):
            value = getattr(self, name)
            if isinstance(value, Path):
                object.__setattr__(self, name, str(value))
        object.__setattr__(self, "method_args", FrozenArgs(self.method_args))
        quiet = (self.quiet,) if isinstance(self.quiet, str) else tuple(map(str, self.quiet or ()))
        object.__setattr__(self, "quiet", quiet or None)
        self._check_names()
        self._check_numbers()

    def _check_names(self) -> None:
        if self.data is None:
            if not isinstance(self.task, str) or not self.task:
                raise ValueError("a run needs a task (one of `klnorm tasks`) or a file of your own (data=...)")
            given = [name for name in ("text", "text_pair", "audio", "label") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"{', '.join(given)} name columns of a file of your own; set data=FILE as well")
        else:
            if self.task is not None:
                raise ValueError(f"give either task={self.task!r} or data={self.data!r}, not both")
            if self.audio is not None and (self.text is not None or self.text_pair is not None):
                raise ValueError("a row is either a text or a recording: give text=... or audio=..., not both")
            inputs = () if self.audio is not None else ("text",)
            missing = [name for name in (*inputs, "label") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"data={self.data!r} needs the column names too; set {', '.join(missing)}")
        if self.quiet is not None and self.audio is None:
            raise ValueError("quiet names labels of recordings of your own; set data=FILE and audio=COLUMN as well")
        if not isinstance(self.spec_augment, bool):
            raise ValueError(f"spec_augment must be True or False, got {self.spec_augment!r}")
        if not isinstance(self.encoder, str) or not self.encoder:
            raise ValueError("a run needs an encoder: a hub id, a folder, or one of `klnorm encoders`")
        if not isinstance(self.method, str) or not self.method:
            raise ValueError("method must be a name; `klnorm methods` lists them, 'plain' means none")
        for name, allowed in {
            "source": SOURCES,
            "encoder_source": SOURCES,
            "schedule": SCHEDULES,
            "precision": PRECISIONS,
        }.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(allowed)}")
        if self.device not in ("auto", "cpu", "cuda", "mps"):
            raise ValueError(f"device={self.device!r} is unknown; choose auto, cpu, cuda or mps")

    def _check_numbers(self) -> None:
        for name, least in {
            "steps": 1,
            "batch_size": 1,
            "gradient_accumulation": 1,
            "max_length": 4,
            "evaluations": 1,
            "seed": 0,
            "split_seed": 0,
        }.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.size is not None and (not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 2):
            raise ValueError(f"size must be a whole number of at least 2 rows, or None for all, got {self.size!r}")
        for name in ("test_rows", "ood_rows"):
            rows = getattr(self, name)
            if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or rows < 2):
                raise ValueError(f"{name} must be a whole number of at least 2 rows, or None for all, got {rows!r}")
        signs = {"learning_rate": True, "weight_decay": False, "max_grad_norm": True, "max_seconds": True}
        for name, positive in signs.items():
            value = getattr(self, name)
            finite = isinstance(value, (int, float)) and math.isfinite(value)
            if not finite or value < 0 or (positive and value == 0):
                kind = "positive" if positive else "non-negative"
                raise ValueError(f"{name} must be a finite {kind} number, got {value!r}")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio is a share of the steps, between 0 and 1, got {self.warmup_ratio!r}")
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"gradient_accumulation={self.gradient_accumulation} does not divide batch_size={self.batch_size} "
                "(rows per optimiser step); choose a divisor"
            )
        if self.evaluations > self.steps:
            raise ValueError(f"evaluations={self.evaluations} is more than steps={self.steps}; lower it")

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready (those of ``LATER`` where they are not the default); folders by a portable name."""
        values = {f.name: to_plain(getattr(self, f.name)) for f in fields(self)}
        values["encoder"] = portable(self.encoder)
        if self.data is not None:
            values["data"] = Path(self.data).name
        for name in LATER:  # the records made before there was a choice read the same
            if values[name] == getattr(type(self), name):
                del values[name]
        return values

    def command(self, **names: str) -> str:
        """The shell command that makes this run; options left at their defaults are not written."""
        return command_of(self.to_dict(), **names)


def command_of(run: Mapping[str, Any], records: str | None = None) -> str:
    """The ``klnorm run`` command for the ``run`` part of a record."""
    defaults = {f.name: f.default for f in fields(Run)}
    if fit_of(run["method"]).takes_steps:
        defaults["learning_rate"] = learning_rate(run["encoder"])  # what `klnorm run` takes if none is given
    words = ["klnorm", "run"]
    for name in defaults:  # in the order of the fields; a record's keys are sorted
        value = run.get(name)
        always = name in ("task", "encoder", "method", "seed")
        if value is None or name == "method_args" or (not always and value == defaults.get(name)):
            continue
        option = name.replace("_", "-")
        if isinstance(value, list):
            words += [word for one in value for word in (f"--{option}", str(one))]
            continue
        words += [f"--{'' if value else 'no-'}{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
    for key, value in run.get("method_args", {}).items():
        words += ["--method-arg", f"{key}={value}"]
    if records is not None:
        words += ["--records", records]
    return shlex.join(words)
