"""The packaged measurement of cost: read, checked and as a table. It is made by ``make bench``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from klnorm_lib.probes.cost import ratio
from klnorm_lib.study import measurements

LABELS = {
    "plain": "plain",
    "sham": "plain again",
    "layernorm": "LayerNorm",
    "klnorm_a": "KL-Norm A",
    "klnorm_b": "KL-Norm B",
    "klnorm_c": "KL-Norm C",
    "mlp": "same-size MLP",
    "vib": "VIB",
    "mixout": "mixout",
}


def read() -> dict[str, Any]:
    """The packaged measurement, checked against its schema."""
    values = measurements.packaged("cost")
    check(values)
    return values


def check(values: Any) -> None:
    """Raise ``ValueError`` where ``values`` do not fit ``studies/cost.schema.json``, or rounds do not pair."""
    measurements.fit_schema(values, "cost", "`make bench`")
    for model in values["models"]:
        measurements.pair_rounds(model, model["encoder"])


def ratios(model: Mapping[str, Any], baseline: str = "plain", clock: str = "cpu") -> dict[str, tuple]:
    """(median, low, high) of the step time of every other arm over ``baseline``'s, paired by round, at 95 %.

    The arms stand in the order of the book.
    ``clock``: ``cpu`` for seconds of the processor, ``wall`` for seconds by the clock.
    """
    arms = model["arms"]
    if baseline not in arms:
        raise ValueError(f"no arm {baseline!r} was measured on {model['encoder']}; there are {', '.join(arms)}")
    key = f"{clock}_seconds"
    return {name: ratio(arms[name][key], arms[baseline][key]) for name in in_order(arms) if name != baseline}


def frame(values: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each model and arm: parameters added, step time and memory, and the ratios to no method."""
    rows = []
    for model in values["models"]:
        against = ratios(model)
        plain = model["arms"]["plain"]
        for name in in_order(model["arms"]):
            arm = model["arms"][name]
            middle, low, high = against.get(name, (1.0, 1.0, 1.0))
            rows.append(
                {
                    "encoder": model["encoder"],
                    "method": LABELS.get(name, name),
                    "parameters added": arm["added_parameters"],
                    "share of parameters": arm["added_parameters"] / plain["parameters"],
                    "step, ms": 1e3 * float(pd.Series(arm["cpu_seconds"]).median()),
                    "step, times plain": middle,
                    "from": low,
                    "to": high,
                    "memory, MiB": memory(arm) / 2**20,
                    "memory, times plain": memory(arm) / memory(plain),
                }
            )
    return pd.DataFrame(rows)


def memory(arm: Mapping[str, Any]) -> int:
    """Bytes that training with this arm needs: weights, optimiser state, and the most that a step allocates."""
    return arm["state_bytes"] + arm["step_bytes"]


def in_order(arms: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Names of arms in the order of the book: plain, controls, KL-Norm, others."""
    listed = [name for name in LABELS if name in arms]
    return listed + sorted(set(arms) - set(listed))
