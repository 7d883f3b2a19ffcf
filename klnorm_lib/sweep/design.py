"""A study: tasks x sizes x encoders x arms x trials x replicates, spelt out as runs.

A *setting* is a task, a size and an encoder. An *arm* is a method configuration: a method, its fixed hyperparameters
and what is tuned of it. A *replicate* (``draws`` in YAML and records) is a pair of split seed and model seed; arms are
compared replicate by replicate. Each arm with something to tune first makes all its *trials* on the tuning replicates;
the trial with the best mean validation score then makes the final replicates, whose test scores are the results. All
tuned arms of a part have equally many trials. The tuning replicates are others than those reported, but where a study
says ``draws: final``: it chooses on validation rows of the reported ones.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from klnorm_lib.study.errors import StudyError
from klnorm_lib.study.fit_protocol import fit_of
from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import ELSEWHERE, Run
from klnorm_lib.study.stats.paired import Replicate

RUN_FIELDS = {f.name for f in fields(Run)}


@dataclass(frozen=True)
class Item:
    """One run of a study and what the study says of it (kept in the record, decides nothing)."""

    run: Run
    study: Mapping[str, Any]


@dataclass(frozen=True)
class Arm:
    """A method configuration: a method, what is fixed (``run_fields``: fields of ``Run``), trials of what is tuned."""

    name: str
    label: str
    method: str
    method_args: Mapping[str, Any]
    run_fields: Mapping[str, Any]
    trials: Sequence[Mapping[str, Any]]
    encoder: str | None = None

    def run(self, trial: Mapping[str, Any], **where: Any) -> Run:
        """The run of this arm with this trial's hyperparameters."""
        values = {**where, **self.run_fields}
        args = dict(self.method_args)
        for name, value in trial.items():
            (values if name in RUN_FIELDS else args)[name] = value
        if self.encoder is not None:
            values["encoder"] = self.encoder
        used = fit_of(self.method).used_fields  # a study's common fields need not suit every arm
        values = {name: value for name, value in values.items() if name in used}
        return Run(method=self.method, method_args=args, **values)


@dataclass(frozen=True)
class Part:
    """One piece of a study: which settings, which arms, which replicates; ``default=False``: done only when asked for.

    ``trials``: those of its tuned arms, where the part has others than the arms themselves.
    """

    name: str
    tasks: Mapping[str, Sequence[int | None]]
    encoders: Sequence[str]
    arms: Sequence[str]
    replicates: Sequence[Replicate]
    common: Mapping[str, Any]
    default: bool = True
    tuning_replicates: Sequence[Replicate] = ()
    tuning_size: int | None = None
    tuning_common: Mapping[str, Any] = field(default_factory=dict)
    trials: Sequence[Mapping[str, Any]] = ()

    @property
    def tuned_on_reported(self) -> bool:
        """Whether trials are chosen on the validation rows of the reported replicates."""
        return self.tuning_replicates == self.replicates

    def arm(self, arm: Arm) -> Arm:
        """The arm with the trials that it has in this part."""
        return replace(arm, trials=self.trials) if self.trials and len(arm.trials) > 1 else arm


@dataclass(frozen=True)
class Grid:
    """A study as its YAML file says it; ``tuning()`` and ``final()`` spell it out as runs."""

    name: str
    title: str
    question: str
    arms: Mapping[str, Arm]
    parts: Mapping[str, Part]
    source: str = field(default="", compare=False)

    def chosen_parts(self, names: Iterable[str] | None = None) -> list[Part]:
        """The parts of those names, or those done by default; raises ``StudyError`` for an unknown name."""
        if not names:
            return [part for part in self.parts.values() if part.default]
        unknown = sorted(set(names) - set(self.parts))
        if unknown:
            raise StudyError(f"study {self.name!r} has no part {', '.join(unknown)}; it has {', '.join(self.parts)}")
        return [self.parts[name] for name in names]

    def tuning(self, parts: Iterable[str] | None = None) -> list[Item]:
        """The runs of the first stage: every trial of every arm that has more than one, on the tuning replicates."""
        items = []
        for part, task, size, encoder, arm in self._configurations(parts):
            if len(arm.trials) > 1:
                at = part.tuning_size or size
                for replicate, trial in itertools.product(part.tuning_replicates, arm.trials):
                    items.append(self._item(part, task, at, encoder, arm, replicate, trial, "tuning"))
        return _once(items)

    def final(
        self, records: Iterable[Record], parts: Iterable[str] | None = None, untuned: list[str] | None = None
    ) -> list[Item]:
        """The runs of the second stage, with the trials that the tuning runs among ``records`` choose.

        Raises ``StudyError`` for an arm in a setting whose tuning runs are not all there; with a list ``untuned`` it is
        left out and the reason put there.
        """
        tuned = Tuned(records)
        items = []
        for part, task, size, encoder, arm in self._configurations(parts):
            trial = arm.trials[0]
            if len(arm.trials) > 1:
                wanted = [
                    self._item(part, task, part.tuning_size or size, encoder, arm, replicate, trial, "tuning")
                    for replicate, trial in itertools.product(part.tuning_replicates, arm.trials)
                ]
                try:
                    trial = tuned.best(wanted, by_loss=not part.tuned_on_reported)
                except StudyError as error:
                    if untuned is None:
                        raise
                    untuned.append(f"{task}/{size}/{encoder}/{arm.name}: {error}")
                    continue
            items += [
                self._item(part, task, size, encoder, arm, replicate, trial, "final") for replicate in part.replicates
            ]
        return _once(items)

    def recorded(self, records: Iterable[Record], parts: Iterable[str] | None = None) -> tuple[int, int]:
        """How many runs of these parts are among ``records``, finished, and how many there are in all."""
        records = list(records)
        finished = {run_key(r.run) for r in records if r.status == "finished"}
        tuning = self.tuning(parts)
        items = [*tuning, *self.final(records, parts, untuned=[])]
        planned = len(tuning) + sum(len(part.replicates) for part, *_ in self._configurations(parts))
        return sum(run_key(item.run.to_dict()) in finished for item in items), planned

    def _configurations(self, parts: Iterable[str] | None) -> Iterator[tuple[Part, str, int | None, str, Arm]]:
        for part in self.chosen_parts(parts):
            for task, sizes in part.tasks.items():
                for encoder, size, name in itertools.product(part.encoders, sizes, part.arms):
                    yield part, task, size, encoder, part.arm(self.arms[name])

    def _item(self, part, task, size, encoder, arm: Arm, replicate: Replicate, trial, stage: str) -> Item:
        common = part.common if stage == "final" else {**part.common, **part.tuning_common}
        where = {**common, "task": task, "size": size, "encoder": encoder}
        run = arm.run(trial, **where, split_seed=replicate[0], seed=replicate[1])
        study = {"name": self.name, "part": part.name, "arm": arm.name, "label": arm.label, "stage": stage}
        if len(arm.trials) > 1:
            tuned_on = {
                "size": part.tuning_size or size,
                "draws": [list(replicate) for replicate in part.tuning_replicates],
            }
            study |= {"grid": [dict(t) for t in arm.trials], "tuned_on": tuned_on}
        study |= {"trial": dict(trial), "trials": len(arm.trials)}
        return Item(run, study)


class Tuned:
    """The tuning runs among records, found again by their fields."""

    def __init__(self, records: Iterable[Record]) -> None:
        records = list(records)
        self._found = {run_key(r.run): r for r in records if r.status == "finished"}
        self._failed = {run_key(r.run) for r in records if r.status == "failed"}

    def best(self, items: Sequence[Item], by_loss: bool = True) -> Mapping[str, Any]:
        """The trial with the best mean primary validation metric; ties: lowest mean validation loss, then the first.

        Where the trials were made on the reported replicates themselves the first one wins a tie at once.
        A trial of which a run failed comes last. Raises ``StudyError`` naming the first run that is not recorded.
        """
        scores: dict[str, list[tuple[float, float]]] = defaultdict(list)
        trials = {}
        for item in items:
            key, name = run_key(item.run.to_dict()), repr(item.study["trial"])
            trials[name] = item.study["trial"]
            record = self._found.get(key)
            if record is None and key in self._failed:
                scores[name].append((-math.inf, -math.inf))
                continue
            if record is None:
                raise StudyError(f"a tuning run is not recorded yet: {item.run.command()}")
            value = record.validation[record.task["primary_metric"]]
            loss = record.validation.get("nll", record.validation.get("mse")) if by_loss else None
            scores[name].append((-math.inf if value is None else value, -math.inf if loss is None else -loss))
        means = {
            name: tuple(sum(part) / len(found) for part in zip(*found, strict=True)) for name, found in scores.items()
        }
        return trials[max(trials, key=lambda name: means[name])]  # max keeps the first among equals


def run_key(run: Mapping[str, Any]) -> str:
    """What tells one run of a study from another, wherever it was carried out; ``run``: that of a record."""
    return repr(sorted((name, repr(value)) for name, value in run.items() if name not in ELSEWHERE))


def _once(items: Iterable[Item]) -> list[Item]:
    """Items in order, a run that two parts share once for each arm."""
    seen: dict[tuple[Run, str], Item] = {}
    for item in items:
        seen.setdefault((item.run, item.study["arm"]), item)
    return list(seen.values())
