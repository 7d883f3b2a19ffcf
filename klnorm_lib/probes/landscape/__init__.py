"""The landscape around given weights: sections of a loss, its curvature and its sharpness, by sets of parameters."""

from klnorm_lib.probes.landscape.curvature import Estimate, hessian_trace
from klnorm_lib.probes.landscape.directions import direction, filter_scale, norm
from klnorm_lib.probes.landscape.section import Section, section, symmetric
from klnorm_lib.probes.landscape.sets import UNITS, ParameterSet, split
from klnorm_lib.probes.landscape.sharpness import Sharpness, sharpness

__all__ = [
    "UNITS",
    "Estimate",
    "ParameterSet",
    "Section",
    "Sharpness",
    "direction",
    "filter_scale",
    "hessian_trace",
    "norm",
    "section",
    "sharpness",
    "split",
    "symmetric",
]
