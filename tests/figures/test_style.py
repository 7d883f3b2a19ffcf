"""Figures are readable: contrast against their ground, and distance between colours under dichromacy."""

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from klnorm_lib.figures import style

# Machado, Oliveira and Fernandes 2009: full protanopia, deuteranopia, tritanopia; linear RGB to linear RGB.
SIGHT = {
    "trichromat": np.eye(3),
    "protanope": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranope": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanope": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)
JUST_TELLABLE = 2.3  # a difference of one CIELAB unit times this is about the least that is seen


def linear(colour: str) -> np.ndarray:
    value = np.array(mpl.colors.to_rgb(colour))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    ratio = TO_XYZ @ rgb / TO_XYZ.sum(1)
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(first: str, second: str) -> float:
    """WCAG's ratio of relative luminances, between 1 and 21."""
    light, dark = sorted((TO_XYZ[1] @ linear(first), TO_XYZ[1] @ linear(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def distance(first: str, second: str, sight: str) -> float:
    seen = [np.clip(np.asarray(SIGHT[sight]) @ linear(c), 0, 1) for c in (first, second)]
    return float(np.linalg.norm(lab(seen[0]) - lab(seen[1])))


def test_measures_agree_with_known_values():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert lab(linear("#ffffff")) == pytest.approx([100, 0, 0], abs=0.05)
    # Green and brown of equal lightness: easy for most, hard for a deuteranope.
    assert distance("#4f7f00", "#8b6a00", "deuteranope") < 0.6 * distance("#4f7f00", "#8b6a00", "trichromat")


@pytest.mark.parametrize("colour", style.PALETTE)
def test_lines_stand_out_from_the_ground(colour):
    assert contrast(colour, style.GROUND) >= 3  # WCAG 2.1, 1.4.11: graphical objects


def test_text_stands_out_from_the_ground():
    assert contrast(style.INK, style.GROUND) >= 7  # WCAG 2.1, 1.4.6: enhanced contrast of text


def test_ground_stands_out_from_a_dark_page():
    assert contrast(style.GROUND, "#121212") >= 7


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_can_be_told_apart(sight):
    for first, second in itertools.combinations(style.PALETTE, 2):
        assert distance(first, second, sight) > 10 * JUST_TELLABLE, (first, second)


def test_colour_is_never_the_only_sign():
    assert len(style.PALETTE) == len(set(style.PALETTE)) == len(set(style.MARKERS)) == len(set(style.DASHES))


def test_use_reaches_a_saved_figure(tmp_path):
    with mpl.rc_context():
        style.use()
        figure, axes = plt.subplots()
        (line,) = axes.plot([0, 1])
        figure.savefig(tmp_path / "figure.png")
        plt.close(figure)
        assert line.get_color() == style.PALETTE[0]
    corner = plt.imread(tmp_path / "figure.png")[0, 0]
    assert corner == pytest.approx(mpl.colors.to_rgba(style.GROUND), abs=1 / 255)


@pytest.mark.parametrize("name", [style.SEQUENTIAL, style.DIVERGING])
def test_colour_maps_exist(name):
    assert name in mpl.colormaps
