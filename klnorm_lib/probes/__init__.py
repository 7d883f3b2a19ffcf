"""Probes measure a model and change nothing."""

from klnorm_lib.probes.fisher import diagonal_fisher
from klnorm_lib.probes.rates import effective_rates

__all__ = ["diagonal_fisher", "effective_rates"]
