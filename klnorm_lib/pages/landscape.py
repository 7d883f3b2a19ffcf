"""The packaged sections of losses, made by benchmarks/landscape.py: read, checked and compared set by set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from klnorm_lib.figures.landscape import rises
from klnorm_lib.study import measurements
from klnorm_lib.study.stats.paired import t_interval

SHORT = {
    "published": "published",
    "counts": "tensors, counts",
    "counts_length": "tensors, both",
    "parameters_length": "weights, both",
    "within_length": "in matrices, both",
}


def read() -> dict[str, Any]:
    """The packaged sections, checked."""
    values = measurements.packaged("landscape")
    check(values)
    return values


def check(values: Any) -> None:
    """Raise ``ValueError`` where ``values`` does not fit ``studies/landscape.schema.json``, or sections do not fit.

    Every section must have as many losses as its axis has coordinates, 0 among them; all sections of a model must have
    the same loss there; and directions of a scheme of equal length must have the model's length.
    """
    measurements.fit_schema(values, "landscape", "benchmarks/landscape.py")
    made = "it is written by benchmarks/landscape.py and not edited by hand"
    for model in values["models"]:
        origins = set()
        for part in model["profiles"]:
            origins.add(part["losses"][origin(model["axis"])])
            if len(part["losses"]) != len(model["axis"]):
                raise ValueError(f"{model['name']}: a section has {len(part['losses'])} losses; {made}")
            equal = values["schemes"].get(part["scheme"], {}).get("equal_length")
            if equal and abs(part["norm"] / model["length"] - 1) > 1e-3:
                raise ValueError(f"{model['name']}: a direction of {part['scheme']} is {part['norm']} long; {made}")
        for plane in model["surfaces"]:
            losses = np.array(plane["losses"])
            if losses.shape != (len(plane["axis"]),) * 2:
                raise ValueError(f"{model['name']}: a surface has the shape {losses.shape}; {made}")
            origins.add(losses[origin(plane["axis"]), origin(plane["axis"])])
        if max(origins) - min(origins) > 1e-5:
            raise ValueError(f"{model['name']}: sections through the same weights differ there, {origins}; {made}")


def origin(axis: list[float]) -> int:
    """The index of 0 on an axis. Raises ``ValueError`` if it is not on it."""
    if 0.0 not in axis:
        raise ValueError(f"the origin is not on the grid {axis}")
    return axis.index(0.0)


def model_of(values: Mapping[str, Any], word: str) -> Mapping[str, Any]:
    """The one model of the record with ``word`` in its name."""
    found = [model for model in values["models"] if word in model["name"]]
    if len(found) != 1:
        raise ValueError(f"{len(found)} models have {word!r} in their names: {[m['name'] for m in values['models']]}")
    return found[0]


def frame(model: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each section and radius: fisher, scheme, set, draw, norm, radius, loss and rise.

    ``loss`` is the mean of the two points at that distance from the weights, ``rise`` is that minus the loss at them.
    """
    axis, zero = np.array(model["axis"]), origin(model["axis"])
    rows = []
    for part in model["profiles"]:
        losses = np.array(part["losses"])
        for radius in axis[axis > 0]:
            loss = losses[np.isclose(np.abs(axis), radius)].mean()
            which = {name: part[name] for name in ("fisher", "scheme", "set", "draw", "norm")}
            rows.append({**which, "radius": float(radius), "loss": loss, "rise": loss - losses[zero]})
    return pd.DataFrame(rows)


def contrast(
    table: pd.DataFrame, scheme: str, first: str, second: str, fisher: str = "pretraining", level: float = 0.95
) -> pd.DataFrame:
    """Rise along ``first`` minus rise along ``second``, paired by direction: one row for each radius.

    Columns: radius, mean, low, high (Student's interval over directions, nats), directions, verdict. For the sections'
    own text: ``steeper`` where the interval is above zero, ``flatter`` below, else ``cannot tell``. ``random`` comes
    from the Fisher of pretraining, since it depends on none. Raises ``LookupError`` for sets that were not measured.
    """
    found = [rises(table, scheme, name, fisher) for name in (first, second)]
    rows = []
    for radius, apart in (found[0] - found[1]).items():
        low, high = t_interval(apart.to_numpy(), level)
        verdict = "steeper" if low > 0 else "flatter" if high < 0 else "cannot tell"
        rows.append((radius, apart.mean(), low, high, len(apart), verdict))
    return pd.DataFrame(rows, columns=["radius", "mean", "low", "high", "directions", "verdict"])


def verdicts(values: Mapping[str, Any], radius: float = 0.5) -> pd.DataFrame:
    """The contrasts of every model, Fisher information and scheme at one radius, one a row."""
    rows = []
    for model in values["models"]:
        table = frame(model)
        for fisher in model["fishers"]:
            for scheme in table.loc[table["fisher"] == fisher, "scheme"].unique():
                for first, second in (("top", "bottom"), ("top", "random"), ("bottom", "random")):
                    found = contrast(table, scheme, first, second, fisher).set_index("radius").loc[radius]
                    which = {"model": model["name"], "fisher": fisher, "scheme": scheme, "sets": f"{first} - {second}"}
                    rows.append({**which, **found.to_dict()})
    return pd.DataFrame(rows)
