"""What a run needs before any training, loaded: its rows, where its weights are, its way to fit, its device."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from typing import Any

from klnorm_lib.encoders.sources import RANDOM, EncoderSource, find, resolve
from klnorm_lib.study import cache, machine, stated
from klnorm_lib.study.fit_protocol import FINE_TUNING, Fit, featurisers, fit_of, named_fits
from klnorm_lib.study.spec import Run


@dataclass
class Inputs:
    """All that the hash of a run is made of, and the rows themselves; ``weights`` is a checksum or a hub commit."""

    run: Run
    task: Any
    data: Any
    provenance: dict[str, Any]
    encoder: EncoderSource
    fit: Fit
    device: str

    @property
    def weights(self) -> str | None:
        """What identifies the encoder's weights: their checksum, or their commit on the hub."""
        return self.encoder.sha256 or self.encoder.revision

    @property
    def earlier_weights(self) -> str | None:
        """What the first records have there for randomly initialised weights: the checksum of the stored ones.

        Since then it is that of configuration and vocabulary, on which such weights depend. ``None``: no other.
        """
        if not self.encoder.random or self.encoder.source == "hub":
            return None
        try:
            return resolve(self.run.encoder.removesuffix(RANDOM), self.run.encoder_source).sha256
        except FileNotFoundError:  # a folder without weights
            return None

    @property
    def regression(self) -> bool:
        """Whether the labels are scores."""
        return self.task.label_names is None


def load(run: Run) -> Inputs:
    """The inputs of a run; raises ``ValueError`` or ``FileNotFoundError`` for what is unknown or does not fit."""
    from klnorm_lib import tasks

    check(run)
    if run.data is not None:
        data, task, provenance = tasks.from_file(
            run.data,
            run.text,
            run.text_pair,
            run.label,
            run.audio,
            size=run.size,
            split_seed=run.split_seed,
            quiet=run.quiet or (),
        )
    else:
        task = tasks.spec(run.task)
        wanted = (run.task, run.size, run.split_seed, run.source)
        data, provenance = cache.once(wanted, lambda: tasks.load_with_provenance(*wanted))
        provenance = copy.deepcopy(provenance)
    if not run.spec_augment and task.kind != "audio":
        raise ValueError(f"spec_augment=False is about recordings, and {task.name!r} is a text task; leave it out")
    if not run.ood:
        data, provenance = _without_ood(data, provenance)
    for name, split in data.items():
        most = run.test_rows if name == "test" else run.ood_rows if name.startswith("ood/") else None
        if most is not None:
            data = type(data)({**data, name: _fewer_rows(split, most, task.label_names is None)})
    device = machine.pick_device(run.device)  # after the rows: it needs torch, and a file that is wrong is told first
    fit = build_fit(run)
    return Inputs(run, task, data, provenance, fit.encoder(run, task), fit, device)


def check(run: Run) -> None:
    """Raise ``ValueError`` or ``FileNotFoundError`` for what can be seen to be wrong without torch or any row.

    That is the method and its hyperparameters, fields that would have no effect, the name of the task, its source, and
    an encoder that is nowhere.
    """
    from klnorm_lib.tasks import registry

    fit = fit_of(run.method)
    if fit.name == FINE_TUNING:
        stated.check(run.method, run.method_args)
    else:
        fit.build(run)
    _check_fields(run, fit)
    if run.task is not None:
        registry.check_source(registry.spec(run.task), run.source)
    if run.encoder not in featurisers():
        find(run.encoder, run.encoder_source)


def build_fit(run: Run) -> Fit:
    """The way to fit of a run, with its hyperparameters.

    Raises ``ValueError`` for an unknown method or hyperparameter, for a field that the fit does not read, for a
    featuriser that the fit cannot take in place of an encoder, and for a name that another package's method has too.
    """
    from klnorm_lib.methods import REGISTRY

    fit = fit_of(run.method)
    _check_fields(run, fit)
    if fit.name == run.method and run.method in REGISTRY:
        theirs = f"{REGISTRY[run.method].__module__}:{REGISTRY[run.method].__qualname__}"
        raise ValueError(f"{run.method!r} is a way to fit, and {theirs} is a method of that name; rename the method")
    return fit.build(run)


def _check_fields(run: Run, fit: type[Fit]) -> None:
    unused = [f.name for f in fields(Run) if f.name not in fit.used_fields and getattr(run, f.name) != f.default]
    if unused:
        names, why = ", ".join(unused), "does not read them" if fit.takes_steps else "takes no gradient steps"
        raise ValueError(f"method {run.method!r} {why}, so {names} would have no effect; leave out {names}")
    if run.encoder in featurisers() and run.encoder not in fit.featurisers:
        others = " or ".join(repr(other.name) for other in named_fits() if run.encoder in other.featurisers)
        raise ValueError(
            f"{run.encoder} has no weights to fine-tune: use it with method {others}, or method {run.method!r} with "
            "one of `klnorm encoders`"
        )


def hyperparameters(run: Run) -> dict[str, Any]:
    """The hyperparameters of a run's method, defaults written out; raises ``ValueError`` for one it does not have."""
    return build_fit(run).hyperparameters()


def _without_ood(data, provenance: dict[str, Any]):
    """The splits that are not out of domain, and the same of what says where they came from."""
    kept = {name: split for name, split in data.items() if not name.startswith("ood/")}
    sums = {name: checksum for name, checksum in provenance["checksums"].items() if name in kept}
    return type(data)(kept), {**provenance, "checksums": sums, **{k: {} for k in ("ood", "ood_missing")}}


def _fewer_rows(split, count: int, regression: bool):
    """A stratified sample of test rows, drawn by the seed of the out-of-domain samples: the same in every run."""
    from klnorm_lib.tasks import loading, subsets

    return split.select(subsets.sample(split["label"], count, loading.OOD_SEED, regression))
