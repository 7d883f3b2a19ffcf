"""Putting a dropout where an architecture has none: at the output of a block, or at the input of the first layer.

The block's class becomes a subclass of the same name that runs a dropout module beside its own forward. Its parameters
keep their names, and copies, pickles, compiled and checkpointed models keep the dropout.
"""

from __future__ import annotations

import functools

from torch import Tensor, nn

from klnorm_lib.methods.contract.model_class import rebuild
from klnorm_lib.methods.contract.undo import Undo
from klnorm_lib.probes.missing import MissingPlace
from klnorm_lib.sites.added import NAME, AddedDropout

_INPUT = "hidden_states"  # of a layer, where it is given by name


def add_dropout(site: str, place: MissingPlace, p: float, undo: Undo) -> None:
    """Put dropout of rate ``p`` at ``place``, to be taken away again by ``undo``. Its site has the name ``site``."""
    block = place.block
    undo.later(functools.partial(_take_away, block, type(block)))
    block.add_module(NAME, AddedDropout(site, p, place.before).train(block.training))
    block.__class__ = dropping(type(block))


def _take_away(block: nn.Module, own: type) -> None:
    block.__class__ = own
    del block._modules[NAME]


@functools.cache
def dropping(base: type[nn.Module]) -> type[nn.Module]:
    """The class of a block whose output, or whose input, is dropped."""

    class Dropping(base):
        @functools.wraps(base.forward)
        def forward(self, *args, **kwargs):
            drop = self._modules[NAME]
            if not drop.before:
                return _first_dropped(drop, base.forward(self, *args, **kwargs))
            if args:
                return base.forward(self, drop(args[0]), *args[1:], **kwargs)
            return base.forward(self, **kwargs | {_INPUT: drop(kwargs[_INPUT])})

        def __reduce_ex__(self, protocol):
            return rebuild, (base, dropping), self.__dict__

    # Gaussian dropout, transformers' outputs and this library go by the names of class and module.
    Dropping.__name__, Dropping.__qualname__, Dropping.__module__ = base.__name__, base.__qualname__, base.__module__
    return Dropping


def _first_dropped(drop: nn.Module, output: Tensor | tuple) -> Tensor | tuple:
    return (drop(output[0]), *output[1:]) if isinstance(output, tuple) else drop(output)
