"""Probes measure a model and change nothing."""

from klnorm_lib.probes.rates import effective_rates

__all__ = ["effective_rates"]
