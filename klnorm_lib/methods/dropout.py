"""Dropout at named sites of the encoder: one rate for all, or a rate a site.

Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting"; the default rate is
BERT's (Devlin et al. 2019). In training each element of a site's activation a is kept with probability 1 - p and
scaled, so that its mean stays: y = a m / (1 - p), m ~ Bernoulli(1 - p). In evaluation y = a. Models come with such
sites already; the method sets their rates, and then measures in a forward pass that every site took its rate.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import ClassVar

from torch import nn

from klnorm_lib.methods.added_dropout import add_dropout
from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.method import Method, drawing
from klnorm_lib.methods.contract.undo import Undo, undo_on_error
from klnorm_lib.probes import rates as measured
from klnorm_lib.probes.missing import MissingPlace, missing_places
from klnorm_lib.sites import Site, dropout_sites, encoder_of
from klnorm_lib.sites.ignored import notes_on

DEFAULT_P = 0.1


class FrozenRates(dict):
    """Site name -> rate, hashable and read-only; compares and serialises like a dict."""

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))

    def _refuse(self, *args, **kwargs):
        raise TypeError("the rates of a method cannot be changed; make a new Dropout(rates=...)")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self):
        return FrozenRates, (dict(self),)


@dataclass(frozen=True)
class Dropout(Method):
    """Set the encoder's dropout rates: ``Dropout(p=0.05)`` at every site, ``Dropout(rates={site: p})`` at those named.

    ``klnorm_lib.effective_rates(model)`` lists a model's sites. Dropout of the classifier, pooler dropout and
    layer-drop are left alone. With ``add_missing`` dropout is put at ``embeddings``, ``attention_output`` and
    ``ffn_output`` where the architecture has none (Llama and its kin have ``attention_probs`` alone): the report says
    so, the model is saved with it, and it is measured like any other. Attention weights cannot be reached this way.
    A rate of 1 is allowed and zeroes the site in training: at ``attention_output`` or ``ffn_output`` the residual
    stream goes on without the block; at ``embeddings`` nothing of the input is left.

    Raises ``ValueError`` for a rate outside [0, 1] or NaN, for no rate at all, and for both ``p`` and ``rates``;
    ``TypeError`` for a rate that is not a number. ``attach`` raises ``ValueError`` for an unknown site or a model
    without sites, and ``RuntimeError`` when a measured rate is not the requested one.
    """

    name: ClassVar[str] = "dropout"
    version: ClassVar[int] = 1
    noise: ClassVar[str] = "bernoulli"

    p: float | None = argument(
        DEFAULT_P,
        "probability for every site, in [0, 1]; not used, and None, when ``rates`` is given",
    )
    rates: Mapping[str, float] | None = argument(None, "site name -> probability; sites that are not named keep theirs")
    add_missing: bool = argument(
        False,
        "put dropout where the architecture has none: with ``p`` at every such place, with ``rates`` at those named",
    )

    later: ClassVar[Mapping[str, object]] = MappingProxyType({"add_missing": False})

    def __post_init__(self) -> None:
        if not isinstance(self.add_missing, bool):
            raise TypeError(f"add_missing must be True or False, got {self.add_missing!r}")
        if self.rates is None:
            if self.p is None:
                raise ValueError("Dropout needs a rate: give p (every site) or rates (site name -> p)")
            object.__setattr__(self, "p", _probability(self.p, "p"))
            return
        if not isinstance(self.rates, Mapping):
            raise TypeError(f"rates must map site names to rates, got {type(self.rates).__name__}")
        if not self.rates:
            raise ValueError("rates names no site; give at least one, or p for every site")
        if self.p not in (None, DEFAULT_P):
            raise ValueError(f"give p or rates, not both (got p={self.p} and rates for {len(self.rates)} sites)")
        rates = {str(site): _probability(p, f"the rate of {site}") for site, p in self.rates.items()}
        object.__setattr__(self, "p", None)
        object.__setattr__(self, "rates", FrozenRates(rates))

    @property
    def properties(self) -> frozenset[str]:
        rates = [self.p] if self.rates is None else self.rates.values()
        draws = any(0 < p < 1 for p in rates)
        stated = drawing(draws, mean_preserving=max(rates) < 1)
        # At rate 1 nothing but zeros is left, in training and without a draw.
        return stated if draws or max(rates) < 1 else stated - {"identity_at_init"}

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        """None: 0."""
        return 0

    def attach(self, model: nn.Module) -> list[str]:
        """Set the rates of ``model`` in place, measure that they took, and return "site: old -> new" lines.

        The measurement is one small forward pass of the encoder. It is left out only when parameters are on the
        meta device, where nothing can run; measure such a model with ``effective_rates`` once it has weights.
        On an error the model keeps the rates that it had. Of a site that was added the line says "added".
        """
        with undo_on_error(model) as undo:
            added = self._add(model, undo)
            sites = dropout_sites(model)
            wanted = self._wanted(sites)
            lines = [f"{n}: {'added' if n in added else f'{sites[n].get():g}'} -> {p:g}" for n, p in wanted.items()]
            _refuse_taken(sites, wanted, undo)
            self._make_noise([sites[name] for name in wanted], undo)
            for name, p in wanted.items():
                for rate in sites[name].rates:
                    undo.set(rate.module, rate.attribute, p)
            if not any(parameter.is_meta for parameter in encoder_of(model).parameters()):
                _check(model, wanted, self.noise)
        notes = notes_on(model)
        for note in notes:
            warnings.warn(note, stacklevel=4)
        return lines + notes

    def _add(self, model: nn.Module, undo: Undo) -> set[str]:
        """Put dropout where there is none, and return the names of the new sites."""
        if not self.add_missing:
            return set()
        places = places_to_add(model)
        names = [name for name in places if self.rates is None or name in self.rates]
        for name in names:
            add_dropout(name, places[name], 0.0, undo)
        return set(names)

    def _make_noise(self, sites: Sequence[Site], undo: Undo) -> None:
        """Have ``sites`` draw the method's kind of noise, Bernoulli as they are."""

    def _wanted(self, sites: Mapping[str, Site]) -> dict[str, float]:
        if self.rates is None:
            return dict.fromkeys(sites, self.p)
        unknown = sorted(set(self.rates) - set(sites))
        if unknown:
            raise ValueError(
                f"unknown dropout site {', '.join(unknown)}; this model has {', '.join(sites)}, and add_missing=True "
                "adds embeddings, attention_output and ffn_output where it has none"
            )
        return {name: self.rates[name] for name in sites if name in self.rates}


def places_to_add(model: nn.Module) -> Mapping[str, MissingPlace]:
    """Site -> where dropout can be put; raises ``ValueError`` where that cannot be tried out."""
    if any(parameter.is_meta for parameter in encoder_of(model).parameters()):
        raise ValueError("add_missing needs a model with weights: where dropout is missing is seen in a forward pass")
    return missing_places(model)


def _refuse_taken(sites: Mapping[str, Site], wanted: Mapping[str, float], undo: Undo) -> None:
    """Raise ``ValueError`` when a method before this one, in the same ``apply``, set a rate of these sites."""
    taken = [name for name in wanted if any(undo.has_set(r.module, r.attribute) for r in sites[name].rates)]
    if taken:
        raise ValueError(
            f"two methods set the dropout rate of {', '.join(taken[:6])}{' ...' if len(taken) > 6 else ''}; "
            "give one method all the rates, or name different sites"
        )


def _check(model: nn.Module, wanted: Mapping[str, float], noise: str) -> None:
    wrong = []
    for reading in measured.readings(model):
        if reading.site not in wanted:
            continue
        p = wanted[reading.site]
        if not math.isclose(reading.p, p, abs_tol=1e-9):
            wrong.append(f"{reading.site}: {reading.p:g} runs in {reading.where}, {p:g} was set")
        elif p > 0 and reading.seen.noise != noise:
            wrong.append(f"{reading.site}: the noise in {reading.where} is {reading.seen.noise}, not {noise}")
    if wrong:
        raise RuntimeError(
            f"dropout did not take at {len(wrong)} place(s): {'; '.join(wrong[:6])}. The model's code reads its rate "
            "from somewhere else, often the config, which has one for all layers (Falcon, Persimmon), or a copy frozen "
            "at construction: set the rate in the config before the model is built, or load it with "
            'attn_implementation="eager"; Dropout(rates={...}) sets the other sites'
        )


def _probability(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} must be a number between 0 and 1, got {value!r}")
    if not 0.0 <= value <= 1.0:  # false for NaN as well
        raise ValueError(f"{what} must lie in [0, 1], got {value}")
    return float(value)
