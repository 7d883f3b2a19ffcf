"""A study: tasks x sizes x encoders x arms x trials x replicates, read from YAML and spelt out as runs.

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
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from klnorm_lib import studies
from klnorm_lib.study.errors import StudyError
from klnorm_lib.study.fit_protocol import featurisers, fit_of
from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import ELSEWHERE, Run
from klnorm_lib.study.stats.paired import Replicate

RUN_FIELDS = {f.name for f in fields(Run)}
DESIGN_FIELDS = {"task", "size", "encoder", "split_seed", "seed", "method", "method_args"}
REPORTED = "final"  # tuning replicates: those that are reported


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


def load(name: str | Path) -> Grid:
    """The study of that name, or the one in a YAML file; raises ``StudyError`` saying what is wrong and where."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise StudyError(f"no study file at {path}")
        return parse(path.read_text(encoding="utf-8"), path.stem, str(path))
    if str(name) not in studies.names():
        names = ", ".join(studies.names())
        raise StudyError(f"no study {str(name)!r}; there are {names}, or name a .yaml file of your own")
    return parse(studies.path(f"{name}.yaml").read_text(encoding="utf-8"), str(name), f"{name}.yaml")


def parse(text: str, name: str, source: str = "study") -> Grid:
    """A study from the text of its YAML file; raises ``StudyError`` for anything that it does not understand."""
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise StudyError(f"{source}: not YAML: {error}") from None
    top = _Section(values, source, ("title", "question", "common", "tuning", "arms", "parts"))
    common = top.mapping("common", required=False)
    _check_run_fields(common, f"{source}: common")
    arms = {key: _arm(key, value, f"{source}: arms.{key}") for key, value in top.mapping("arms").items()}
    counts = {arm.name: len(arm.trials) for arm in arms.values() if arm.trials != ({},)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{key} {count}" for key, count in counts.items())
        raise StudyError(
            f"{source}: every tuned arm needs as many trials as the others, or none is fairly tuned: {listed}"
        )
    tuning = _Section(top.mapping("tuning", required=False), f"{source}: tuning", ("draws", "size", "common"))
    parts = {
        key: _part(key, value, f"{source}: parts.{key}", common, tuning, arms)
        for key, value in top.mapping("parts").items()
    }
    return Grid(name, str(top.get("title", name)), str(top.get("question", "")), arms, parts, source)


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as everywhere else."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


class _Section:
    """A mapping of the file that knows where it stands and which keys it may have."""

    def __init__(self, values: Any, where: str, keys: Sequence[str]) -> None:
        if not isinstance(values, Mapping):
            raise StudyError(f"{where}: a mapping with {', '.join(keys)} is needed, got {values!r}")
        unknown = sorted(set(map(str, values)) - set(keys))
        if unknown:
            raise StudyError(f"{where}: unknown key {', '.join(unknown)}; there are {', '.join(keys)}")
        self._values, self.where = values, where

    def get(self, key: str, default: Any = None) -> Any:
        return self._values.get(key, default)

    def mapping(self, key: str, required: bool = True) -> dict[str, Any]:
        value = self._values.get(key)
        if value is None and not required:
            return {}
        if not isinstance(value, Mapping) or (required and not value):
            raise StudyError(f"{self.where}: {key} must be a mapping, got {value!r}")
        return {str(k): v for k, v in value.items()}


def _check_run_fields(values: Mapping[str, Any], where: str) -> None:
    wrong = sorted(set(values) - RUN_FIELDS | set(values) & DESIGN_FIELDS)
    if wrong:
        allowed = ", ".join(sorted(RUN_FIELDS - DESIGN_FIELDS))
        raise StudyError(f"{where}: {', '.join(wrong)} cannot be set here; what can: {allowed}")


def _arm(name: str, values: Any, where: str) -> Arm:
    section = _Section(values, where, ("label", "method", "method_args", "settings", "tune", "encoder"))
    run_fields = section.mapping("settings", required=False)
    _check_run_fields(run_fields, f"{where}.settings")
    encoder = section.get("encoder")
    if encoder is not None and not isinstance(encoder, str):
        raise StudyError(f"{where}: encoder must be a name ({', '.join(featurisers())} or one of `klnorm encoders`)")
    method = section.get("method", "plain")
    trials = _trials(section.get("tune"), f"{where}.tune")
    return Arm(
        name,
        str(section.get("label", name)),
        method,
        section.mapping("method_args", False),
        run_fields,
        trials,
        encoder,
    )


def _trials(tune: Any, where: str) -> tuple[dict[str, Any], ...]:
    """A mapping of lists is their product; a list of mappings is taken as it stands; nothing is one empty trial."""
    if tune is None:
        return ({},)
    if isinstance(tune, Mapping) and tune and all(isinstance(v, list) and v for v in tune.values()):
        return tuple(dict(zip(tune, values, strict=True)) for values in itertools.product(*tune.values()))
    if isinstance(tune, list) and tune and all(isinstance(v, Mapping) and v for v in tune):
        return tuple(dict(v) for v in tune)
    raise StudyError(
        f"{where}: give lists of values by name (their product is tried), or a list of trials; got {tune!r}"
    )


def _part(name: str, values: Any, where: str, common, tuning: _Section, arms: Mapping[str, Arm]) -> Part:
    section = _Section(values, where, ("tasks", "encoders", "arms", "draws", "common", "default", "tuning", "tune"))
    own = _Section(section.mapping("tuning", False), f"{where}.tuning", ("draws", "size", "common"))
    own_common = section.mapping("common", False)
    _check_run_fields(own_common, f"{where}.common")
    tasks = {}
    for task, sizes in section.mapping("tasks").items():
        if not isinstance(sizes, list) or not sizes:
            raise StudyError(f"{where}.tasks.{task}: give a list of sizes, for example [200]; got {sizes!r}")
        tasks[task] = tuple(sizes)
    encoders = section.get("encoders")
    if not isinstance(encoders, list) or not encoders:
        raise StudyError(f"{where}: encoders must be a list of names, got {encoders!r}")
    chosen = section.get("arms", "all")
    chosen = list(arms) if chosen == "all" else chosen
    if not isinstance(chosen, list) or not chosen or set(chosen) - set(arms):
        raise StudyError(f"{where}: arms must be 'all' or a list of {', '.join(arms)}; got {chosen!r}")
    final = _replicates(section.get("draws"), f"{where}.draws")
    tuning_replicates = own.get("draws", tuning.get("draws"))
    reported = tuning_replicates == REPORTED
    tuning_replicates = final if reported else _replicates(tuning_replicates, f"{where}.tuning.draws", optional=True)
    if not tuning_replicates and any(len(arms[arm].trials) > 1 for arm in chosen):
        raise StudyError(f"{where}: there is something to tune, so tuning.draws must name the replicates to tune on")
    if not reported and set(tuning_replicates) & set(final):
        raise StudyError(
            f"{where}: replicates {sorted(set(tuning_replicates) & set(final))} are tuned on and "
            "reported; keep them apart"
        )
    tuning_common = {**tuning.mapping("common", False), **own.mapping("common", False)}
    _check_run_fields(tuning_common, f"{where}.tuning.common")
    return Part(
        name,
        tasks,
        tuple(encoders),
        tuple(chosen),
        final,
        {**common, **own_common},
        bool(section.get("default", True)),
        tuning_replicates,
        own.get("size", tuning.get("size")),
        tuning_common,
        _trials(section.get("tune"), f"{where}.tune") if section.get("tune") is not None else (),
    )


def _replicates(value: Any, where: str, optional: bool = False) -> tuple[Replicate, ...]:
    """A number k is the replicates (0, 0) to (k-1, k-1); a list holds seeds for both, or pairs [split_seed, seed].

    ``{split_seeds: [...], seeds: [...]}`` is every pair of them.
    """
    if value is None and optional:
        return ()
    if _whole(value) and value > 0:
        return tuple((i, i) for i in range(value))
    if (
        isinstance(value, Mapping)
        and set(value) == {"split_seeds", "seeds"}
        and all(isinstance(v, list) and v and all(map(_whole, v)) for v in value.values())
    ):
        return tuple(itertools.product(value["split_seeds"], value["seeds"]))
    if isinstance(value, list) and value:
        pairs = [(v, v) if _whole(v) else tuple(v) if isinstance(v, list) else v for v in value]
        if all(isinstance(p, tuple) and len(p) == 2 and all(map(_whole, p)) for p in pairs) and len(set(pairs)) == len(
            pairs
        ):
            return tuple(pairs)
    raise StudyError(
        f"{where}: give a number of replicates, a list of different seeds or of [split_seed, seed] pairs, or "
        f"{{split_seeds: [...], seeds: [...]}}; got {value!r}"
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
