"""Diagonal empirical Fisher information: how much each parameter matters to the loss of single sequences."""

from klnorm_lib.probes.fisher.core import FisherSum, diagonal_fisher

__all__ = ["FisherSum", "diagonal_fisher"]
