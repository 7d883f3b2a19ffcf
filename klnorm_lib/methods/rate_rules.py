r"""From scores of dropout sites to rates: the published rank rule and its rivals.

m sites with scores :math:`s_i`; r is a site's rank, 0 for the lowest score, m - 1 for the highest (equal scores share
the mean of their ranks); :math:`p_u \ge p_l` are the upper and the lower rate. The published rule is ``rank``:

.. math:: p = p_l + (p_u - p_l)\left(1 - \frac{r}{m-1}\right)

so that the least informative site has the rate :math:`p_u` and the most informative one :math:`p_l`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

RULES = ("rank", "reverse", "random", "site_type", "linear", "log")


def rates_from_scores(
    scores: Mapping[str, float],
    rule: str = "rank",
    p_upper: float = 0.1,
    p_lower: float = 0.0,
    match_mean: float | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Site -> dropout rate, in the order of ``scores``.

    ``rank``: the published rule. ``reverse``: its mirror, the most informative site has ``p_upper``. ``random``: the
    rates of ``rank``, permuted by ``seed``. ``site_type``: every site has the mean rate that ``rank`` gives to
    its type. ``linear``: linear in the score between the lowest (``p_upper``) and the highest (``p_lower``). ``log``:
    the same in the logarithm of the score. Sites that do not differ (one site, equal scores) have
    ``(p_upper + p_lower) / 2``. The first four rules have that mean as well, the last two have not; ``match_mean``
    multiplies all rates by one factor so that their unweighted mean is this value.

    Raises ``ValueError`` for an unknown rule, no scores, rates that are not 0 <= p_lower <= p_upper < 1, a score of
    zero under ``log``, and a ``match_mean`` that is out of reach.
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; choose one of {', '.join(RULES)}")
    if not scores:
        raise ValueError("no scores, so no rates; give the scores of the sites")
    if not 0.0 <= p_lower <= p_upper < 1.0:  # false for NaN as well
        raise ValueError(
            f"rates need 0 <= p_lower <= p_upper < 1, got p_lower={p_lower} and p_upper={p_upper}; "
            "the most informative site has the upper rate under rule='reverse'"
        )
    heights = _HEIGHTS[rule](dict(scores), seed)
    rates = {site: p_lower + (p_upper - p_lower) * height for site, height in heights.items()}
    return rates if match_mean is None else _rescaled(rates, match_mean)


def ranks(scores: Mapping[str, float]) -> dict[str, float]:
    """Site -> rank of its score from 0 (lowest) to m - 1 (highest); equal scores share the mean of their ranks."""
    values = sorted(scores.values())
    return {site: values.index(s) + (values.count(s) - 1) / 2 for site, s in scores.items()}


def _rank(scores: dict[str, float], seed: int) -> dict[str, float]:
    """1 - r/(m-1): 1 at the lowest score, 0 at the highest."""
    last = len(scores) - 1
    return {site: 1 - r / last if last else 0.5 for site, r in ranks(scores).items()}


def _reverse(scores: dict[str, float], seed: int) -> dict[str, float]:
    return {site: 1 - height for site, height in _rank(scores, seed).items()}


def _random(scores: dict[str, float], seed: int) -> dict[str, float]:
    heights = list(_rank(scores, seed).values())
    deal = torch.randperm(len(heights), generator=torch.Generator().manual_seed(seed)).tolist()
    return {site: heights[i] for site, i in zip(scores, deal, strict=True)}


def _site_type(scores: dict[str, float], seed: int) -> dict[str, float]:
    by_type: dict[str, list[float]] = {}
    heights = _rank(scores, seed)
    for site, height in heights.items():
        by_type.setdefault(site_type(site), []).append(height)
    return {site: math.fsum(by_type[site_type(site)]) / len(by_type[site_type(site)]) for site in heights}


def _linear(scores: dict[str, float], seed: int) -> dict[str, float]:
    low, high = min(scores.values()), max(scores.values())
    return {site: (high - s) / (high - low) if high > low else 0.5 for site, s in scores.items()}


def _log(scores: dict[str, float], seed: int) -> dict[str, float]:
    zero = [site for site, s in scores.items() if s <= 0]
    if zero:
        raise ValueError(f"rule 'log' needs positive scores, but {', '.join(zero[:5])} scored 0; use rule='linear'")
    return _linear({site: math.log(s) for site, s in scores.items()}, seed)


_HEIGHTS: dict[str, Callable[[dict[str, float], int], dict[str, float]]] = {
    "rank": _rank, "reverse": _reverse, "random": _random, "site_type": _site_type, "linear": _linear, "log": _log,
}  # fmt: skip


def site_type(site: str) -> str:
    """``embeddings``, ``attention_probs``, ``attention_output``, ``ffn_hidden`` or ``ffn_output``."""
    return site.rpartition(".")[2]


def _rescaled(rates: dict[str, float], mean: float) -> dict[str, float]:
    now = math.fsum(rates.values()) / len(rates)
    if not 0.0 <= mean < 1.0:
        raise ValueError(f"match_mean must lie in [0, 1), got {mean}")
    if now == 0.0 and mean > 0.0:
        raise ValueError(f"match_mean={mean} cannot be reached: all rates are 0; raise p_upper")
    scaled = {site: p * (mean / now) if now else 0.0 for site, p in rates.items()}
    over = [f"{site} {p:.3g}" for site, p in scaled.items() if p >= 1.0]
    if over:
        raise ValueError(
            f"match_mean={mean} would need rates of 1 or more ({', '.join(over[:4])}); lower match_mean, or raise "
            "p_lower so that the rates differ less"
        )
    return scaled
