"""The packaged sections of losses, made by benchmarks/landscape.py: read, checked, compared set by set, and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from klnorm_lib.figures import style
from klnorm_lib.study import measurements
from klnorm_lib.study.stats.mean import mean_of_draws
from klnorm_lib.study.stats.paired import t_interval

SETS = {"top": 0, "random": 4, "bottom": 1, "all": 3}  # place in the palette
SCHEMES = {
    "published": "half of the tensors",
    "counts": "tensors, equal counts",
    "counts_length": "tensors, equal counts, norms",
    "parameters_length": "weights, equal counts, norms",
    "within_length": "weights of each matrix, same",
}
SHORT = {
    "published": "published",
    "counts": "tensors, counts",
    "counts_length": "tensors, both",
    "parameters_length": "weights, both",
    "within_length": "in matrices, both",
}
# Mean masked-token losses of BERT-base at a distance from its weights, over a plane (Sharma et al. 2024, figure 1).
PUBLISHED = {
    "radius": (0.14, 0.32, 0.5, 0.7, 0.9, 1.4),
    "all": (2.16, 3.36, 9.03, 11.5, 13.4, 18.3),
    "bottom": (2.14, 2.71, 6.99, 10.1, 12.0, 16.2),
    "top": (2.10, 2.23, 3.05, 6.86, 9.4, 9.9),
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
    """The place of 0 on an axis. Raises ``ValueError`` if it is not on it."""
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
            told = {name: part[name] for name in ("fisher", "scheme", "set", "draw", "norm")}
            rows.append({**told, "radius": float(radius), "loss": loss, "rise": loss - losses[zero]})
    return pd.DataFrame(rows)


def contrast(
    table: pd.DataFrame, scheme: str, first: str, second: str, fisher: str = "pretraining", level: float = 0.95
) -> pd.DataFrame:
    """Rise along ``first`` minus rise along ``second``, paired by direction: one row for each radius.

    Columns: radius, mean, low, high (Student's interval over directions, nats), directions, verdict. For the sections'
    own text: ``steeper`` where the interval is above zero, ``flatter`` below, else ``cannot tell``. ``random`` comes
    from the Fisher of pretraining, since it depends on none. Raises ``LookupError`` for sets that were not measured.
    """
    rises = [_rises(table, scheme, name, fisher) for name in (first, second)]
    rows = []
    for radius, apart in (rises[0] - rises[1]).items():
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
                    told = {"model": model["name"], "fisher": fisher, "scheme": scheme, "sets": f"{first} - {second}"}
                    rows.append({**told, **found.to_dict()})
    return pd.DataFrame(rows)


def _rises(table: pd.DataFrame, scheme: str, name: str, fisher: str) -> pd.DataFrame:
    """Rises by draw (rows) and radius (columns)."""
    of = "none" if name == "all" else "pretraining" if name == "random" else fisher
    part = table[(table["scheme"] == ("all" if name == "all" else scheme)) & (table["set"] == name)]
    part = part[part["fisher"] == of]
    if part.empty:
        raise LookupError(f"no section moves {name!r} by {scheme!r} with the Fisher information of {fisher!r}")
    return part.pivot(index="draw", columns="radius", values="rise")


def profiles(
    axes, table: pd.DataFrame, scheme: str, sets=("top", "random", "bottom"), fisher: str = "pretraining"
) -> None:
    """Rise against radius on ``axes``: the mean over directions of each set, and a band, its 95 % interval."""
    for name in sets:
        rises = _rises(table, scheme, name, fisher)
        colour, place = style.PALETTE[SETS[name]], list(SETS).index(name)
        bounds = np.array([mean_of_draws(rises[r]).interval() for r in rises])
        radii = np.concatenate([[0.0], rises.columns])
        axes.fill_between(radii, *np.vstack([[0, 0], bounds]).T, color=colour, alpha=0.22, linewidth=0)
        means = np.concatenate([[0.0], rises.mean()])
        axes.plot(
            radii, means, style.DASHES[place], marker=style.MARKERS[place], color=colour, label=name, markersize=5
        )
    axes.set_title(SCHEMES.get(scheme, scheme), fontsize=style.FONT)


def published(axes) -> None:
    """``PUBLISHED`` on ``axes``, as rises above the smallest distance: there is no loss of the weights themselves."""
    for name in ("top", "bottom"):
        rises = np.array(PUBLISHED[name]) - PUBLISHED[name][0]
        look = dict(marker=style.MARKERS[list(SETS).index(name)], markersize=5, color=style.PALETTE[SETS[name]])
        axes.plot(PUBLISHED["radius"], rises, linestyle=style.DASHES[list(SETS).index(name)], label=name, **look)
    axes.set_title("BERT-base, as published", fontsize=style.FONT)


def contours(axes, plane: Mapping[str, Any], levels: np.ndarray) -> Any:
    """One plane as filled contours on ``axes``, with the origin marked; returns what a colour bar needs."""
    filled = axes.contourf(plane["axis"], plane["axis"], np.array(plane["losses"]).T, levels=levels, extend="max")
    axes.contour(
        plane["axis"], plane["axis"], np.array(plane["losses"]).T, levels=levels, colors=style.INK, linewidths=0.5
    )
    axes.plot(0, 0, "+", color=style.GROUND, markersize=11, markeredgewidth=2)
    axes.set_aspect("equal")
    axes.set_title(plane["set"], fontsize=style.FONT)
    return filled


def surface(axes, plane: Mapping[str, Any], top: float) -> None:
    """One plane as a surface on three-dimensional ``axes``, with the vertical axis up to ``top``."""
    a, b = np.meshgrid(plane["axis"], plane["axis"], indexing="ij")
    losses = np.array(plane["losses"])
    axes.plot_surface(
        a, b, losses, cmap=style.SEQUENTIAL, vmin=losses.min(), vmax=top, linewidth=0.3, edgecolor=style.INK
    )
    axes.set_zlim(losses.min(), top)
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    axes.tick_params(labelsize=style.FONT - 3, pad=-1)
    axes.view_init(elev=24, azim=-58)
    axes.set_title(plane["set"], fontsize=style.FONT)
