"""Figures of the Fisher information: a map of layers and tensors, and dropout rates by type of site."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from klnorm_lib.figures import style
from klnorm_lib.probes.fisher.table import FisherTable

# What stands in a layer of BERT and its kin, in the order of the forward pass: label -> the end of its name.
COLUMNS = {
    "query": "attention.self.query.weight",
    "key": "attention.self.key.weight",
    "value": "attention.self.value.weight",
    "attention out": "attention.output.dense.weight",
    "FFN in": "intermediate.dense.weight",
    "FFN out": "output.dense.weight",
    "query bias": "attention.self.query.bias",
    "key bias": "attention.self.key.bias",
    "value bias": "attention.self.value.bias",
    "attention out bias": "attention.output.dense.bias",
    "FFN in bias": "intermediate.dense.bias",
    "FFN out bias": "output.dense.bias",
    "attention norm scale": "attention.output.LayerNorm.weight",
    "attention norm shift": "attention.output.LayerNorm.bias",
    "FFN norm scale": "output.LayerNorm.weight",
    "FFN norm shift": "output.LayerNorm.bias",
}
NOTHING = 1e-12  # below this a mean is rounding noise


def layer_map(table: FisherTable) -> np.ndarray:
    """Mean Fisher information of every tensor of a BERT's layers: (layers, columns of ``COLUMNS``).

    Raises ``ValueError`` naming the tensor that a layer lacks.
    """
    layers = 1 + max((int(n.split(".")[2]) for n in table if n.startswith("encoder.layer.")), default=-1)
    names = [[f"encoder.layer.{i}.{end}" for end in COLUMNS.values()] for i in range(layers)]
    missing = [name for row in names for name in row if name not in table]
    if missing or not layers:
        raise ValueError(
            f"the table is of no encoder named as BERT's: {(missing or ['encoder.layer.0'])[0]} is missing"
        )
    return np.array([[table[name].mean for name in row] for row in names])


def draw_map(ax, table: FisherTable):
    """Draw :func:`layer_map` on a logarithmic scale, what is nothing left empty; returns the image."""
    from matplotlib.colors import LogNorm

    values = layer_map(table)
    values[values < NOTHING] = np.nan
    image = ax.imshow(values, norm=LogNorm(), cmap=style.SEQUENTIAL, aspect="auto")
    ax.set(yticks=range(len(values)), ylabel="layer")
    ax.set_xticks(range(len(COLUMNS)), COLUMNS, rotation=90)
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label="mean of $F_j$")
    return image


def by_kind(rates: Mapping[str, float]) -> dict[str, list[float]]:
    """Type of site -> its rates, from the first layer to the last."""
    found: dict[str, list[float]] = {}
    for site, rate in rates.items():
        found.setdefault(site.rpartition(".")[2], []).append(rate)
    return found


def draw_kinds(ax, rates: Mapping[str, float], published: Mapping[str, float] | None = None):
    """Draw the rate of every site by its type, a point a layer, coloured by depth, beside published means."""
    kinds = by_kind(rates)
    points = None
    for x, of in enumerate(kinds.values()):
        depth = np.linspace(0, 1, len(of)) if len(of) > 1 else np.zeros(1)
        spread = x + 0.3 * (depth - 0.5) * (len(of) > 1)
        points = ax.scatter(spread, of, c=depth, cmap=style.SEQUENTIAL, vmin=0, vmax=1, s=60, zorder=3, ec=style.INK)
    for x, kind in enumerate(kinds):
        if published and kind in published:
            label = "published for BERT" if x == 0 else None
            ax.hlines(published[kind], x - 0.35, x + 0.35, color=style.PALETTE[1], lw=3, label=label)
    ax.set_xticks(range(len(kinds)), [kind.replace("_", "\n") for kind in kinds])
    ax.set_ylabel("dropout rate")
    return points
