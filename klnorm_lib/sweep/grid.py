"""Studies read from YAML, packaged ones by their names: every mistake is reported with its place in the file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from klnorm_lib import studies
from klnorm_lib.study.errors import StudyError
from klnorm_lib.study.fit_protocol import featurisers
from klnorm_lib.study.stats.paired import Replicate
from klnorm_lib.sweep.design import RUN_FIELDS, Arm, Grid, Part

DESIGN_FIELDS = {"task", "size", "encoder", "split_seed", "seed", "method", "method_args"}
REPORTED = "final"  # tuning replicates: those that are reported


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
    """A mapping of the file with its position, for messages, and the keys that it may have."""

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
