r"""Scores of dropout sites: how much Fisher information is in the tensors upstream of each site.

Let :math:`F_j` be the diagonal Fisher information of weight j, t a tensor of :math:`n_t` weights, and T the tensors
that belong to a site (see ``klnorm_lib.sites.names``, and ``klnorm_lib.probes.upstream`` for encoders that it does not
know). With :math:`S_t = \sum_{j\in t} F_j` the score s of the
site is

.. math::
    \text{tensor\_mean: } \frac{1}{|T|}\sum_{t\in T} \frac{S_t}{n_t} \qquad
    \text{mass: } \frac{\sum_{t\in T} S_t}{\sum_{t\in T} n_t} \qquad
    \text{sum: } \sum_{t\in T} S_t .

``tensor_mean`` is the published one (Sharma et al. 2024, arXiv 2406.14005): a bias of a few hundred weights counts as
much as a matrix of many thousands. In ``mass`` every weight counts the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from klnorm_lib.sites.dropouts import KINDS
from klnorm_lib.sites.names import bare_name, tensor_sites

_OUTPUT_MATRIX = ("lm_head.weight", "decoder.weight")
AGGREGATIONS = ("tensor_mean", "mass", "sum")


def site_scores(
    fisher: Mapping[str, Any],
    aggregation: str = "tensor_mean",
    tensors: Mapping[str, Collection[str]] | None = None,
    encoder: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Site -> score, from the embeddings to the last layer.

    ``fisher``: parameter name -> tensor of its shape, or a ``FisherTable`` (name -> sum, and how many elements).
    ``tensors``: site -> names, in the encoder, of the parameters upstream of it, as
    ``klnorm_lib.probes.upstream.site_tensors(model)`` finds them; None: by the names of the encoders that
    ``klnorm_lib.sites.names`` knows. ``encoder``: all its parameters, name -> number of elements, so that the
    Fisher of another encoder is noticed.
    Raises ``ValueError`` for an unknown aggregation, a name that belongs to no known encoder (without ``tensors``), a
    value that is negative or not finite, or a Fisher that leaves out a tensor or a layer of the encoder.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"unknown aggregation {aggregation!r}; choose one of {', '.join(AGGREGATIONS)}")
    totals = _totals(fisher)
    if tensors is not None:
        named = _under_names_of_the_encoder(totals, tensors, encoder or {})
        return {site: _aggregate([named[name] for name in names], aggregation) for site, names in tensors.items()}
    groups: dict[str, dict[str, tuple[float, int]]] = {}
    for name, site in tensor_sites(totals).items():
        if site is not None:
            groups.setdefault(site, {})[name] = totals[name]
    _check_whole(groups)
    return {site: _aggregate(list(groups[site].values()), aggregation) for site in sorted(groups, key=_order)}


def _totals(fisher: Mapping[str, Any]) -> dict[str, tuple[float, int]]:
    """Parameter name -> sum of its Fisher values, and how many there are."""
    totals = {
        name: (float(f.detach().double().sum()), f.numel()) if isinstance(f, Tensor) else (f.sum, f.numel)
        for name, f in fisher.items()
    }
    if not totals:
        raise ValueError("the Fisher is empty; compute it with klnorm_lib.probes.diagonal_fisher(model, batches)")
    bad = [name for name, (total, count) in totals.items() if not (math.isfinite(total) and total >= 0)]
    if bad:
        raise ValueError(
            f"the Fisher of {', '.join(bad[:5])} is negative or not finite; it is a mean of squared gradients, "
            "so compute it again, in float32"
        )
    return totals


def _under_names_of_the_encoder(
    totals: Mapping[str, tuple[float, int]], tensors: Mapping[str, Collection[str]], encoder: Mapping[str, int]
) -> dict[str, tuple[float, int]]:
    """The totals of all ``tensors``; whatever a model with a head puts before the names of its encoder is taken off."""
    wanted = {name for names in tensors.values() for name in names}
    by_prefix: dict[str, dict[str, tuple[float, int]]] = {}
    for name, total in totals.items():
        parts = bare_name(name).split(".")
        for k in range(len(parts)):
            if (own := ".".join(parts[k:])) in wanted:
                by_prefix.setdefault(".".join(parts[:k]), {})[own] = total
    prefix = max(by_prefix, key=lambda each: len(by_prefix[each]), default="")
    found = by_prefix.get(prefix, {})
    lacking = sorted(wanted - set(found))
    if len(lacking) == 1 and encoder:
        # A language model that names its tied matrix after the head (Jina v3) has it under no name of the encoder.
        tied = [t for n, t in totals.items() if n.endswith(_OUTPUT_MATRIX) and t[1] == encoder[lacking[0]]]
        if len(tied) == 1:
            found[lacking.pop()] = tied[0]
    if lacking:
        more = f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""
        raise ValueError(
            f"the Fisher leaves out tensors of the encoder ({', '.join(lacking[:4])}{more}), so its sites do not "
            "compare; compute it with every parameter trainable, and of this encoder"
        )
    if encoder:
        _check_same_encoder(totals, prefix, found, tensors, encoder)
    return found


def _check_same_encoder(
    totals: Mapping[str, tuple[float, int]],
    prefix: str,
    found: Mapping[str, tuple[float, int]],
    tensors: Mapping[str, Collection[str]],
    encoder: Mapping[str, int],
) -> None:
    """Raise ``ValueError`` for more layers, or wider ones; the vocabulary may have grown, and 0 is no size (4 bits)."""
    kinds = {_without_numbers(name) for name in found}
    under = [bare_name(name).removeprefix(f"{prefix}.") for name in totals]
    other = [name for name in under if _without_numbers(name) in kinds and name not in encoder]
    fixed = {name for site, names in tensors.items() if not site.endswith("embeddings") for name in names}
    other += [name for name in fixed if encoder[name] and found[name][1] != encoder[name]]
    if other:
        raise ValueError(
            f"the Fisher has tensors that the encoder has not, or not of this size ({', '.join(sorted(other)[:4])}), "
            "so it is of another encoder; compute it of this one"
        )


def _without_numbers(name: str) -> str:
    return ".".join("N" if part.isdigit() else part for part in name.split("."))


def _aggregate(tensors: list[tuple[float, int]], aggregation: str) -> float:
    tensors = [(total, count) for total, count in tensors if count]  # one without elements has no mean
    if aggregation == "tensor_mean":
        return math.fsum(total / count for total, count in tensors) / max(1, len(tensors))
    mass = math.fsum(total for total, _ in tensors)
    return mass / max(1, sum(count for _, count in tensors)) if aggregation == "mass" else mass


def _check_whole(groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Every layer has to bring the same tensors: a score over fewer of them would not compare with the others."""
    if "embeddings" not in groups:
        raise ValueError("the Fisher has no tensor of the embeddings; compute it with every parameter trainable")
    layers: dict[int, set[str]] = {}
    for site, tensors in groups.items():
        if site != "embeddings":
            layers.setdefault(_order(site)[0], set()).update(_in_layer(name) for name in tensors)
    everywhere = set().union(*layers.values())
    lacking = [
        f"layer {i}: {', '.join(sorted(everywhere - layers.get(i, set())))}"
        for i in range(max(layers, default=-1) + 1)
        if layers.get(i) != everywhere
    ]
    if lacking or not layers:
        raise ValueError(
            f"the Fisher leaves out tensors of the encoder ({'; '.join(lacking[:4]) or 'all layers'}), so its sites do "
            "not compare; compute it with every parameter trainable"
        )


def _in_layer(name: str) -> str:
    """The part of a parameter's name that follows the number of its layer."""
    parts = name.split(".")
    return ".".join(parts[next(i for i, part in enumerate(parts) if part.isdigit()) + 1 :])


def _order(site: str) -> tuple[int, int]:
    if site == "embeddings":
        return -1, 0
    _, layer, kind = site.split(".")
    return int(layer), KINDS.index(kind)
