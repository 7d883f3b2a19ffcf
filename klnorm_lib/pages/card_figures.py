"""Two figures of the page on the encoders: what the cards claim, every seed a point, and scores against labels."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping

import numpy as np

from klnorm_lib.figures import style
from klnorm_lib.pages.card_claims import Claim, Ladder, mean_of_tasks

COLOURS = 64  # of a picture within a page: a quarter of the bytes, and no difference to be seen
_LOOKS = {"better": ("^", style.PALETTE[0]), "worse": ("v", style.PALETTE[1]), "cannot tell": ("D", style.INK)}


def claims_figure(cards: Mapping[str, list[Claim]]):
    """The encoder minus its twin and minus the baseline, task by task, a panel for each card.

    Small dots: seeds; marks: means; bars: 95 % intervals. Triangles: the interval leaves zero out.
    """
    import matplotlib.pyplot as plt

    rows = {name: [(claim, other) for claim in found for other in claim.against] for name, found in cards.items()}
    heights = [len(part) + 1 for part in rows.values()]
    size = (6.4, 0.36 * sum(heights) + 0.9)
    fig, axes = plt.subplots(len(rows), 1, figsize=size, sharex=True, height_ratios=heights, squeeze=False)
    for ax, (name, part) in zip(axes.flat, rows.items(), strict=True):
        for y, (_, other) in enumerate(part):
            marker, colour = _LOOKS[other.verdict]
            ax.plot([other.low, other.high], [y, y], color=colour, lw=2)
            ax.plot(other.change, np.full(len(other.change), y - 0.28), "o", color=style.PALETTE[2], ms=3.5, alpha=0.6)
            ax.plot(other.change.mean(), y, marker, color=colour, ms=7)
        ax.axvline(0, color=style.INK, lw=1, ls=":")
        labels = [f"{claim.task}: {_short(other.name)}" for claim, other in part]
        ax.set(yticks=range(len(part)), yticklabels=labels, ylim=(len(part) - 0.4, -0.8))
        ax.tick_params(axis="y", labelsize=style.FONT - 3)
        ax.set_title(f"{name} minus the arm named", loc="left", fontsize=style.FONT)
        ax.grid(axis="y", visible=False)
    axes[-1, 0].set_xlabel("difference of the test score")
    return fig


def _short(name: str) -> str:
    return "random" if name.endswith(":random") else name.split(",")[0]


def ladder_figure(cells: Ladder):
    """Mean score over the tasks of a table against the number of labels, a line for each arm."""
    import matplotlib.pyplot as plt

    means = mean_of_tasks(cells)
    sizes, names = list(means), list(next(iter(means.values())))
    fig, ax = plt.subplots(figsize=(6.0, 5.0))
    for i, name in enumerate(names):
        look = {"marker": style.MARKERS[i], "ls": style.DASHES[i], "color": style.PALETTE[i]}
        ax.plot(sizes, [means[size][name] for size in sizes], label=name.split("/")[-1], **look)
    ax.set(
        xscale="log",
        xlabel="labels, validation included",
        ylabel=f"mean score of {len({task for task, _, _ in cells})} tasks",
    )
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=2)
    return fig


def as_html(figure, alt: str, caption: str) -> str:
    """A figure as HTML that needs no file beside the page; closes it."""
    import matplotlib.pyplot as plt
    from PIL import Image

    drawn, held = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(held, format="png", optimize=True)
    picture = base64.b64encode(held.getvalue()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{picture}" alt="{html.escape(alt, quote=True)}" '
        f'style="max-width:100%; height:auto">\n<figcaption>{html.escape(caption)}</figcaption></figure>'
    )
