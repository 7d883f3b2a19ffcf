"""Drawings of sections of losses: profiles with their bands, contours and surfaces of planes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from klnorm_lib.figures import style
from klnorm_lib.study.stats.mean import mean_of_replicates

SETS = {"top": 0, "random": 4, "bottom": 1, "all": 3}  # colour of the palette
SCHEMES = {
    "published": "half of the tensors",
    "counts": "tensors, equal counts",
    "counts_length": "tensors, equal counts, norms",
    "parameters_length": "weights, equal counts, norms",
    "within_length": "weights of each matrix, same",
}
# Mean masked-token losses of BERT-base at a distance from its weights, over a plane (Sharma et al. 2024, figure 1).
PUBLISHED = {
    "radius": (0.14, 0.32, 0.5, 0.7, 0.9, 1.4),
    "all": (2.16, 3.36, 9.03, 11.5, 13.4, 18.3),
    "bottom": (2.14, 2.71, 6.99, 10.1, 12.0, 16.2),
    "top": (2.10, 2.23, 3.05, 6.86, 9.4, 9.9),
}


def rises(table: pd.DataFrame, scheme: str, name: str, fisher: str) -> pd.DataFrame:
    """Rises along the directions of one set: direction (rows) by radius (columns).

    Raises ``LookupError`` for a set that was not measured.
    """
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
        found = rises(table, scheme, name, fisher)
        colour, look = style.PALETTE[SETS[name]], list(SETS).index(name)
        bounds = np.array([mean_of_replicates(found[r]).interval() for r in found])
        radii = np.concatenate([[0.0], found.columns])
        axes.fill_between(radii, *np.vstack([[0, 0], bounds]).T, color=colour, alpha=0.22, linewidth=0)
        means = np.concatenate([[0.0], found.mean()])
        axes.plot(radii, means, style.DASHES[look], marker=style.MARKERS[look], color=colour, label=name, markersize=5)
    axes.set_title(SCHEMES.get(scheme, scheme), fontsize=style.FONT)


def published(axes) -> None:
    """``PUBLISHED`` on ``axes``, as rises above the smallest distance: there is no loss of the weights themselves."""
    for name in ("top", "bottom"):
        above = np.array(PUBLISHED[name]) - PUBLISHED[name][0]
        look = dict(marker=style.MARKERS[list(SETS).index(name)], markersize=5, color=style.PALETTE[SETS[name]])
        axes.plot(PUBLISHED["radius"], above, linestyle=style.DASHES[list(SETS).index(name)], label=name, **look)
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
