"""The packaged measurement of what the Fisher information costs: read, checked, as a table. ``make bench`` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from klnorm_lib.probes.cost import ratio
from klnorm_lib.study import measurements

LABELS = {
    "ordinary": "ordinary backward pass",
    "sham": "the same again",
    "ordinary_selected": "ordinary, labelled tokens only",
    "hooks": "hooks, from the beginning",
    "hooks_steady": "hooks, a further batch",
    "func": "torch.func",
    "loop": "loop over sequences",
    "opacus": "Opacus",
    "nngeometry": "nngeometry",
}


def read() -> dict[str, Any]:
    """The packaged measurement, checked against its schema."""
    values = measurements.packaged("fisher_cost")
    check(values)
    return values


def check(values: Any) -> None:
    """Raise ``ValueError`` where ``values`` do not fit ``studies/fisher_cost.schema.json``, or rounds do not pair."""
    measurements.fit_schema(values, "fisher_cost", "`make bench`")
    for model in values["models"]:
        measurements.pair_rounds(model, model["model"])


def ratios(model: Mapping[str, Any], baseline: str = "ordinary") -> dict[str, tuple[float, float, float]]:
    """(median, low, high) of every other arm's processor time over ``baseline``'s, paired by round, at 95 %."""
    plain = model["arms"][baseline]["cpu_seconds"]
    return {way: ratio(arm["cpu_seconds"], plain) for way, arm in model["arms"].items() if way != baseline}


def frame(values: Mapping[str, Any], baseline: str = "ordinary") -> pd.DataFrame:
    """One row a model and way: time over ``baseline``'s with its interval, memory, and tensors that are exact.

    ``memory`` is the most that the way held at once, over the bytes of the model's parameters in single precision.
    """
    rows = []
    for model in values["models"]:
        for way, (middle, low, high) in ratios(model, baseline).items():
            arm = model["arms"][way]
            said = arm["exactness"] or {}
            rows.append(
                {
                    "model": model["model"],
                    "way": LABELS.get(way, way),
                    "time": middle,
                    "low": low,
                    "high": high,
                    "memory": arm["peak_bytes"] / (4 * model["parameters"]),
                    "exact": said.get("exact"),
                    "tensors": said.get("tensors"),
                }
            )
    return pd.DataFrame(rows).astype({"exact": "Int64", "tensors": "Int64"})
