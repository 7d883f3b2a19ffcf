r"""Guided dropout: the more important the weights upstream of a dropout are for pretraining, the lower its rate.

Sharma, Muralidhar, Xu, Yousuf and Ramakrishnan 2024, "Information Guided Regularization for Fine-tuning Language
Models" (arXiv 2406.14005). The diagonal Fisher information of the *pretraining* loss scores every dropout site of the
encoder; the sites are ranked, and their rates are linear in the rank r of m sites, 0 being the least informative:

.. math:: p = p_l + (p_u - p_l)\left(1 - \frac{r}{m-1}\right)

What runs is plain dropout with one rate a site. With the defaults the mean rate is 0.05, half of that of BERT; the
other rules are the controls without which a comparison would confound the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from klnorm_lib.methods import rate_rules
from klnorm_lib.methods.added_dropout import add_dropout
from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.method import Method, whole_numbers
from klnorm_lib.methods.contract.undo import Undo
from klnorm_lib.methods.dropout import Dropout, places_to_add
from klnorm_lib.methods.origin import check_weights, named_origin
from klnorm_lib.probes.fisher.tensors import FisherTensors
from klnorm_lib.probes.reading_order import parameter_names
from klnorm_lib.probes.upstream import site_tensors
from klnorm_lib.sites.dropouts import known_sites
from klnorm_lib.sites.names import tensor_sites
from klnorm_lib.sites.scores import AGGREGATIONS, site_scores
from klnorm_lib.sites.walk import bare_parameters, encoder_of

TASK = "task"
GIVEN = "given tensors"  # of an encoder whose sites only a model shows


@dataclass(frozen=True)
class GuidedDropout(Method):
    """Set every dropout rate of the encoder by the Fisher information of the weights upstream of it.

    Without ``rates`` they are made when the method is applied, by
    :func:`klnorm_lib.methods.rate_rules.rates_from_scores` of what :func:`klnorm_lib.sites.scores.site_scores` gives.
    A model is saved with its rates, so that loading it needs no table.

    Raises ``ValueError`` for an unknown rule or aggregation and rates out of range; applying it raises ``ValueError``
    for a model whose sites the rates do not cover, ``FileNotFoundError`` when there is no table, and ``RuntimeError``
    when a measured rate is not the requested one.
    """

    name: ClassVar[str] = "guided_dropout"
    version: ClassVar[int] = 1

    rates: Mapping[str, float] | None = argument(
        None,
        "site name -> probability, for every site; when given they are used, and the other arguments only "
        "say how they were made",
    )
    fisher: str | None = argument(
        None,
        "a shipped table by its encoder's name, or a file of ``klnorm fisher``; None: the table of the "
        "model's own encoder; ``task``: the Fisher information of the task's loss on the training rows, "
        "which needs ``prepare``",
    )
    rule: str = argument(
        "rank",
        "from scores to rates: ``rank`` (the published one), ``reverse``, ``random``, ``site_type``, "
        "``linear`` or ``log``",
    )
    p_upper: float = argument(0.1, "rate of the least informative site, below 1")
    p_lower: float = argument(0.0, "rate of the most informative site, at least 0")
    aggregation: str = argument(
        "tensor_mean",
        "from weights to the score of a site: ``tensor_mean`` (the published one), ``mass``: mean over all "
        "weights upstream of the site, or ``sum``: their sum",
    )
    match_mean: float | None = argument(
        None,
        "mean rate over the sites to which all rates are scaled, in [0, 1); None: as they are",
    )
    seed: int | None = argument(None, "of rule ``random``; None counts as 0, and in a study as the run's own seed")
    add_missing: bool = argument(
        False,
        "put dropout at embeddings, attention_output and ffn_output where the architecture has none, and rank those "
        "sites with the others",
    )

    later: ClassVar[Mapping[str, object]] = MappingProxyType({"add_missing": False})

    def __post_init__(self) -> None:
        if not isinstance(self.add_missing, bool):
            raise TypeError(f"add_missing must be True or False, got {self.add_missing!r}")
        if self.rates is not None:
            object.__setattr__(self, "rates", Dropout(rates=self.rates).rates)  # checked and frozen
        if self.fisher is not None:
            if not isinstance(self.fisher, (str, PathLike)):
                raise TypeError(
                    f"fisher must be the name or path of a table, or 'task', got {type(self.fisher).__name__}; for "
                    "tensors use GuidedDropout.from_fisher(tensors)"
                )
            object.__setattr__(self, "fisher", str(self.fisher))
        if self.aggregation not in AGGREGATIONS:
            raise ValueError(f"unknown aggregation {self.aggregation!r}; choose one of {', '.join(AGGREGATIONS)}")
        if self.seed is not None:
            whole_numbers(self, "seed")
        self._rates({"one": 1.0, "two": 2.0}, check=True)

    @property
    def properties(self) -> frozenset[str]:
        if self.rates is not None:
            return Dropout(rates=self.rates).properties
        return Dropout(0.0 if self.match_mean == 0 else self.p_upper).properties

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        """None: 0."""
        return 0

    @classmethod
    def from_fisher(
        cls,
        fisher: Mapping[str, Any] | str | PathLike,
        p_upper: float = 0.1,
        p_lower: float = 0.0,
        rule: str = "rank",
        aggregation: str = "tensor_mean",
        match_mean: float | None = None,
        seed: int = 0,
        model: nn.Module | None = None,
        add_missing: bool = False,
    ) -> GuidedDropout:
        """The method with its rates made from ``fisher`` now, or, where that takes a model, when it is applied.

        ``fisher``: parameter name -> tensor (what ``diagonal_fisher`` returns), a ``FisherTable``, or the name or path
        of one. ``model``: of which encoder it is; None: the model that ``diagonal_fisher`` saw. Where there is none (a
        file), the names of the parameters have to tell, which those of the encoders in ``klnorm_lib.sites.names`` do;
        for another encoder, and with ``add_missing``, ``rates`` stays None until the method is applied. Raises what
        :func:`klnorm_lib.sites.scores.site_scores` and :func:`klnorm_lib.methods.rate_rules.rates_from_scores` raise,
        and ``FileNotFoundError``.
        """
        source = str(fisher) if isinstance(fisher, (str, PathLike)) else _name_of(fisher)
        method = cls(None, source, rule, p_upper, p_lower, aggregation, match_mean, seed, add_missing)
        table = _table(fisher) if isinstance(fisher, (str, PathLike)) else fisher
        if model is None and (add_missing or not _known_by_name(table)):
            model = table.model() if isinstance(table, FisherTensors) else None
            if model is not None:
                return method.with_rates_from(table, model)
            later = dataclasses.replace(method, fisher=method.fisher or GIVEN)
            object.__setattr__(later, "_given", table)
            return later
        return method.with_rates_from(table, model)

    def with_rates_from(self, fisher: Mapping[str, Any], model: nn.Module | None = None) -> GuidedDropout:
        """The same method with the rates that its rule makes of ``fisher`` (tensors or a ``FisherTable``).

        ``model``: of which encoder it is; None where the names of its parameters tell.
        """
        if model is None:
            scores = site_scores(fisher, self.aggregation)
        else:
            given = parameter_names(encoder_of(model))
            sizes = {name: weight.numel() if weight.is_floating_point() else 0 for name, weight in given}
            scores = site_scores(fisher, self.aggregation, self._tensors(model), sizes)
        return dataclasses.replace(self, rates=self._rates(scores))

    def _tensors(self, model: nn.Module) -> dict[str, tuple[str, ...]]:
        """Site -> the parameters upstream of it, with the sites that will be added."""
        undo = Undo()
        try:
            for site, place in places_to_add(model).items() if self.add_missing else ():
                add_dropout(site, place, 0.0, undo)
            return site_tensors(model)
        finally:
            undo.back_to()

    def prepare(self, model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Method:
        """With ``fisher="task"``: the method with rates from the Fisher of the model's own loss on ``batches``.

        The head is as it is, so before training it is a random one. Any other ``fisher``: the method itself.
        """
        if self.fisher != TASK or self.rates is not None:
            return self
        from klnorm_lib.probes import diagonal_fisher

        return self.with_rates_from(_of_encoder(model, diagonal_fisher(model, batches, progress=False)), model)

    def resolved(self, model: nn.Module) -> Method:
        """The method with its rates, looked up in the table of the model's encoder where none is named."""
        if self.rates is not None:
            return self
        if self.fisher == TASK:
            raise ValueError(
                "GuidedDropout(fisher='task') has not seen the task yet: "
                "method = method.prepare(model, batches), where batches are training rows with labels, then apply it"
            )
        given = getattr(self, "_given", None)
        if given is not None:
            source = None if self.fisher == GIVEN else self.fisher
            return dataclasses.replace(self, fisher=source).with_rates_from(given, model)
        if self.fisher == GIVEN:
            raise ValueError(
                "this copy of the method has lost the Fisher information that it was made from; make it for the "
                "model, GuidedDropout.from_fisher(fisher, model=model), which writes its rates down"
            )
        if self.fisher is not None:
            # a path means nothing elsewhere
            source = Path(self.fisher).name if Path(self.fisher).is_file() else self.fisher
            return dataclasses.replace(self, fisher=source).with_rates_from(_table(self.fisher), model)
        name = named_origin(model, "name a table, GuidedDropout(fisher=NAME_OR_FILE)")
        table = _table(name)
        check_weights(model, name, table.provenance, f", or use this one with GuidedDropout(fisher={name!r})")
        return dataclasses.replace(self, fisher=name).with_rates_from(table, model)

    def attach(self, model: nn.Module) -> list[str]:
        """Set the rates, measure that they took, and return "site: old -> new" lines."""
        method = self.resolved(model)
        left_out = [site for site in known_sites(model) if site not in method.rates]
        if left_out:
            raise ValueError(
                f"no rate for {', '.join(left_out[:6])}{' ...' if len(left_out) > 6 else ''}: GuidedDropout sets "
                "every site, and the rates name others; were they made for another encoder? To set some sites only "
                "use Dropout(rates={...})"
            )
        return Dropout(rates=method.rates, add_missing=self.add_missing).attach(model)

    def _rates(self, scores: Mapping[str, float], check: bool = False) -> dict[str, float]:
        mean = None if check else self.match_mean
        if check and self.match_mean is not None and not 0.0 <= self.match_mean < 1.0:
            raise ValueError(f"match_mean must lie in [0, 1), got {self.match_mean}")
        return rate_rules.rates_from_scores(scores, self.rule, self.p_upper, self.p_lower, mean, self.seed or 0)


def _table(name: str | PathLike) -> Mapping[str, Any]:
    from klnorm_lib.probes.fisher.table import FisherTable

    return FisherTable.load(name)


def _known_by_name(fisher: Mapping[str, Any]) -> bool:
    """Whether the names of the parameters say to which sites they belong."""
    try:
        tensor_sites(fisher)
    except ValueError:
        return False
    return True


def _name_of(fisher: Mapping[str, Any]) -> str | None:
    """Name of the encoder that a table was made from; tensors do not say."""
    provenance = getattr(fisher, "provenance", None) or {}
    return provenance.get("model")


def _of_encoder(model: nn.Module, fisher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of ``fisher`` that is of the encoder's parameters, under the encoder's own names."""
    inside = {id(parameter): name for name, parameter in encoder_of(model).named_parameters()}
    return {
        inside[id(parameter)]: fisher[name]
        for name, parameter in bare_parameters(model).items()
        if id(parameter) in inside and name in fisher
    }
