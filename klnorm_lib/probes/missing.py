"""Where an encoder has no dropout although others have one there: seen in a forward pass.

``embeddings``                     nothing is drawn before the first layer of a stack reads its input
``layer.{i}.attention_output``     nothing is drawn between the attention's last linear map and the next map
``layer.{i}.ffn_output``           nothing is drawn between the feed-forward block's last linear map and the next map

Attention weights are dropped inside the attention's own code, where nothing can be put.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from torch import nn

from klnorm_lib.probes.reading_order import Drawn, Layer, Read, ReadingOrder
from klnorm_lib.sites.dropouts import known_sites
from klnorm_lib.sites.structure import has_attention, is_feed_forward, number_of


@dataclass(frozen=True)
class MissingPlace:
    """A block whose output is not dropped, or, if ``before``, whose input is not."""

    block: nn.Module
    before: bool = False


def missing_places(model: nn.Module) -> dict[str, MissingPlace]:
    """Name of the site that could be there -> its place. One small forward pass; the model is left as it was."""
    return _Missing(model).places()


class _Missing(ReadingOrder):
    """From the events of one pass to places where no mask is drawn."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.known = known_sites(model)
        self.layers: dict[Layer, list[int]] = {}
        for at, event in enumerate(self.events):
            layer = self.layer_of(event)
            if isinstance(event, Read) and layer is not None:
                self.layers.setdefault(layer, []).append(at)

    def places(self) -> dict[str, MissingPlace]:
        """All of them, from the embeddings to the last layer."""
        attentive = {layer[0] for layer in self.layers if self.pays_attention(layer)}
        heads = {stack.split(".")[0] for stack in attentive}
        found: dict[str, MissingPlace | None] = {}
        stages: dict[str, dict[tuple[str, ...], int]] = {}
        for layer, reads in self.layers.items():
            stack, index = layer
            # Of layers in stages (Swin) those that only join positions are left out.
            if stack not in attentive or len(index) > 1 and not self.pays_attention(layer):
                continue
            prefix = f"{stack.split('.')[0]}." if len(heads) > 1 else ""
            path = self.events[reads[0]].name.removesuffix(f".{self.rest(reads[0])}")
            if stack not in stages and not self.drawn_before(reads[0]):
                found[f"{prefix}embeddings"] = MissingPlace(self.modules[path], before=True)
            number = number_of(index, stages.setdefault(stack, {}))
            for kind, last in self.last_maps(reads).items():
                if not self.drawn_after(last):
                    found[f"{prefix}layer.{number}.{kind}"] = self.block(path, reads, last)
        return {name: place for name, place in found.items() if place is not None and name not in self.known}

    def pays_attention(self, layer: Layer) -> bool:
        """Whether the layer has an attention module."""
        return any(has_attention(self.rest(at)) for at in self.layers[layer])

    def rest(self, at: int) -> str:
        """The part of the name of the parameter read at ``at`` that follows its layer."""
        return self.inside(self.events[at].name)

    def holder(self, at: int) -> str:
        """The module that holds the parameter read at ``at``."""
        return self.events[at].name.rpartition(".")[0]

    def last_maps(self, reads: list[int]) -> dict[str, int]:
        """Kind of site -> where the last linear map of its block is read, of one layer."""
        found: dict[str, int] = {}
        for at in reads:
            if not self.is_map(self.events[at].name):
                continue
            if has_attention(self.rest(at)):
                found[f"{'cross_' if has_attention(self.rest(at), cross=True) else ''}attention_output"] = at
            elif is_feed_forward(self.rest(at)):
                found["ffn_output"] = at
        return found

    def drawn_after(self, at: int) -> bool:
        """Whether a mask is drawn before the next linear map is read, in the same layer."""
        for k in range(at + 1, len(self.events)):
            event = self.events[k]
            if isinstance(event, Drawn):
                return self.layer_of(event) == self.layer_of(self.events[at])
            if self.is_map(event.name) and self.holder(k) != self.holder(at):
                return False
        return False

    def drawn_before(self, at: int) -> bool:
        """Whether a mask is drawn above the layers on the way to the read at ``at``, the first one of its stack."""
        for event in reversed(self.events[:at]):
            if self.layer_of(event) is not None:
                return False
            if isinstance(event, Drawn):
                return True
        return False

    def block(self, path: str, reads: list[int], last: int) -> MissingPlace | None:
        """The outermost module of the layer that ends with the map read at ``last``, before the residual sum."""
        parts = self.rest(last).split(".")[:-1]
        for k in range(1, len(parts) + 1):
            outer = f"{path}.{'.'.join(parts[:k])}"
            behind = [at for at in reads if at > last and self.holder(at).startswith(outer)]
            if not any(self.ends_block(at, last) for at in behind) and not _adds_residual(self.modules[outer]):
                return MissingPlace(self.modules[outer])
        return None

    def ends_block(self, at: int, last: int) -> bool:
        """Whether what is read at ``at`` is another map, or a normalisation, after the last map of a block."""
        if self.is_map(self.events[at].name):
            return self.holder(at) != self.holder(last)
        return "norm" in type(self.modules[self.holder(at)]).__name__.lower()


def _adds_residual(block: nn.Module) -> bool:
    return bool({"input_tensor", "residual"} & inspect.signature(block.forward).parameters.keys())
