"""Dropout that a method puts where an architecture has none."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from klnorm_lib.sites.walk import join, places

NAME = "added_dropout"  # of the module, in the block whose output (or input) it drops


class AddedDropout(nn.Dropout):
    """Dropout at ``site``; ``before``: of what enters the block around it, instead of what comes out."""

    added_by_klnorm = True

    def __init__(self, site: str, p: float, before: bool = False) -> None:
        super().__init__(p)
        self.site, self.before = site, before


def added_dropouts(encoder: nn.Module) -> Iterator[tuple[str, AddedDropout]]:
    """Path and module of each that takes part in the forward pass."""
    for place in places(encoder):
        added = place.module._modules.get(NAME)
        if isinstance(added, AddedDropout):
            yield join(place.path, NAME), added
