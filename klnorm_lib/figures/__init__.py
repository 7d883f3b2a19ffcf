"""Figures made from records and measurements: readable by the colour-blind, in dark mode, and on a phone."""

from klnorm_lib.figures.sound import players

__all__ = ["players"]
