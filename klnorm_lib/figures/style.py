"""One look for every figure of the book: readable by the colour-blind, in dark mode, and on a phone.

The ground is opaque and light, so that a figure reads the same whatever the page around it looks like. Neighbouring
colours of the palette stay apart under the three kinds of dichromacy; lines also differ in dashes, points in markers.
"""

from __future__ import annotations

import matplotlib as mpl
import seaborn as sns

PALETTE = ("#2968a6", "#d96c00", "#7900f2", "#8c3f59", "#1b1b3a", "#a60000")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
GROUND = "#fbfbf8"
INK = "#222222"
GRID = "#d9d9d4"
SEQUENTIAL = "cividis"
DIVERGING = "PuOr"

# Inches and points: a figure 6 wide, scaled to the 330 pixels of a phone's column, still has a font of about 10 pixels.
SIZE = (6.0, 3.7)
FONT = 13


def use() -> None:
    """Make every figure drawn from now on look like the book's; call it once, before the first figure.

    Sets matplotlib's rcParams through seaborn: ``PALETTE`` as colour cycle, ``GROUND`` behind figure and axes in the
    notebook and in saved files, ``INK`` for text, ``SEQUENTIAL`` as colour map. Changes no figure that exists already.
    """
    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette=PALETTE,
        rc={
            "figure.facecolor": GROUND,
            "axes.facecolor": GROUND,
            "savefig.facecolor": GROUND,
            "savefig.transparent": False,
            "savefig.bbox": "tight",
            "figure.figsize": SIZE,
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "figure.constrained_layout.use": True,
            "font.size": FONT,
            "axes.titlesize": FONT + 1,
            "axes.labelsize": FONT,
            "xtick.labelsize": FONT - 1,
            "ytick.labelsize": FONT - 1,
            "legend.fontsize": FONT - 1,
            "legend.frameon": True,
            "legend.facecolor": GROUND,
            "legend.edgecolor": GRID,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.edgecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "grid.color": GRID,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.linewidth": 2.0,
            "lines.markersize": 6.0,
            "image.cmap": SEQUENTIAL,
        },
    )
    mpl.rcParams["axes.prop_cycle"] = mpl.cycler(color=PALETTE)
