"""Drawings of the committed sections: their means, bands and axes."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from klnorm_lib.figures import landscape
from klnorm_lib.pages import landscape as recorded


def test_profiles_show_means_and_bands():
    table = recorded.frame(recorded.read()["models"][0])
    fig, ax = plt.subplots()
    landscape.profiles(ax, table, "counts_length")
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert set(lines) == {"top", "random", "bottom"}
    for name, line in lines.items():
        part = table[(table["scheme"] == "counts_length") & (table["set"] == name)]
        assert line.get_ydata() == pytest.approx([0, *part.groupby("radius")["rise"].mean()])
    assert len(ax.collections) == 3
    assert len({line.get_linestyle() for line in lines.values()}) == 3
    plt.close(fig)


def test_planes_are_drawn_with_their_axes_in_order():
    plane = {"set": "top", "axis": [-1.0, 0.0, 1.0], "losses": [[5, 5, 5], [1, 0, 1], [9, 9, 9]]}
    fig, ax = plt.subplots()
    landscape.contours(ax, plane, np.linspace(0, 9, 4))
    fig.canvas.draw()
    assert ax.get_aspect() == 1
    assert (ax.get_lines()[0].get_xdata()[0], ax.get_lines()[0].get_ydata()[0]) == (0, 0)
    solid = plt.figure().add_subplot(projection="3d")
    landscape.surface(solid, plane, 9)
    assert solid.get_zlim() == pytest.approx((0, 9))
    plt.close("all")
