"""What a way to fit states and does, and the ways to fit by name; ``klnorm_lib.study.fits`` holds them, a file each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np

FINE_TUNING = "fine-tuning"  # stands for every method that no other fit has the name of


class Fit(ABC):
    """One way from labelled rows and an encoder to predictions; an instance holds its hyperparameters.

    ``name`` is what ``Run.method`` says, ``description`` one line for listings, ``version`` rises when its numbers
    change. ``used_fields`` are the fields of ``Run`` that it reads: a run that sets another one is refused.
    ``takes_steps``: whether it trains by gradient steps, so that steps and a learning rate mean something.
    ``shares_features``: whether runs with the same encoder and rows share what takes their time, so that a study does
    them one after the other. ``featurisers`` are names that it takes in place of an encoder, each with one line.
    ``later``: fields that came after the first committed records, with the value that stands for how it was before.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    used_fields: ClassVar[frozenset[str]]
    takes_steps: ClassVar[bool] = True
    shares_features: ClassVar[bool] = False
    featurisers: ClassVar[Mapping[str, str]] = MappingProxyType({})
    later: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    version: int = 1

    @classmethod
    @abstractmethod
    def build(cls, run: Any) -> Fit:
        """The fit of a ``Run``; raises ``ValueError`` for a hyperparameter that it does not have."""

    @abstractmethod
    def hyperparameters(self) -> dict[str, Any]:
        """What a record and a hash hold of it, as plain JSON; fields of ``later`` at their old value are left out."""

    def encoder(self, run: Any, task: Any) -> Any:
        """The ``EncoderSource`` of a ``Run``; raises ``ValueError`` when it does not fit the task."""
        from klnorm_lib import encoders

        return encoders.resolve(run.encoder, run.encoder_source)

    @abstractmethod
    def fit(self, inputs: Any, record: Any, reporter: Any) -> dict[str, np.ndarray]:
        """Fit, select on the validation rows, and predict every other split once: split -> logits (rows, outputs).

        ``inputs`` is a ``klnorm_lib.study.inputs.Inputs``. Into ``record`` go ``evaluations``, ``selected``,
        ``validation``, ``parameters``, what was changed, and the time of training; into ``reporter`` what a person
        should see.
        """


_fits: dict[str, type[Fit]] = {}


def register(fit: type[Fit]) -> type[Fit]:
    """Make a way to fit known by its name; raises ``ValueError`` for a name that is taken."""
    if _fits.get(fit.name, fit) is not fit:
        raise ValueError(f"there is a way to fit called {fit.name!r} already; choose another name")
    _fits[fit.name] = fit
    return fit


def fit_of(method: str) -> type[Fit]:
    """The way to fit that the method of a run asks for: one of that name, else fine-tuning."""
    return _fits.get(method, _fits[FINE_TUNING])


def named_fits() -> list[type[Fit]]:
    """The ways to fit that are methods by themselves: all but fine-tuning."""
    return [fit for name, fit in _fits.items() if name != FINE_TUNING]


def featurisers() -> dict[str, str]:
    """What may stand in place of an encoder, each with one line that says what it is and with which method."""
    return {
        name: f"{text}, only with method {fit.name}" for fit in named_fits() for name, text in fit.featurisers.items()
    }
