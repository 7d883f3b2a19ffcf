"""Which axes of a layer's activations are examples and positions, where they are not (batch, length, features)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from klnorm_lib.sites.positions import real_positions


@dataclass
class Positions:
    """The real positions of one forward: called with a layer's length, (batch, length) bool, or None without a mask.

    ``mask``: (batch, tokens) or None; ``unknown``: whether a mask was given that does not say which tokens are real.
    """

    config: object
    mask: Tensor | None
    unknown: bool = False

    @classmethod
    def of(cls, config, mask: Tensor | None, tokens: Tensor | None) -> Positions:
        """From a model's inputs; the (batch, choices, tokens) of multiple choice are read as (batch * choices, tokens).

        Other masks of three or four axes say who attends to whom, not which tokens are real.
        """
        if isinstance(mask, Tensor) and mask.ndim == 3 and tokens is not None and tokens.shape[:3] == mask.shape:
            mask = mask.flatten(0, 1)
        known = mask is None or (isinstance(mask, Tensor) and mask.ndim == 2)
        return cls(config, mask if known else None, not known)

    def __call__(self, length: int) -> Tensor | None:
        return real_positions(self.config, self.mask, length)

    def arrange(self, values: Tensor, memory: dict[str, int], strides: tuple[int, ...] = ()) -> Tensor:
        """``values``, one number for each place of an activation, as (batch, length), heads averaged; else unchanged.

        Known orders: (batch, length), (length, batch), (batch * length), and with attention heads (batch, heads,
        length), (batch, length, heads), (batch * length, heads). The axes are told apart by their sizes; where two
        sizes are equal, by the order seen before (``memory``, a layer's own) or by the activation's ``strides``:
        heads are cut out of a projection, so the length has the longer one.
        """
        if self.mask is None:
            return values
        (rows, total), shape = self.mask.shape, tuple(values.shape)
        if len(shape) == 1 and shape[0] == rows * total != rows:
            return values.view(rows, total)
        if len(shape) == 2:
            if shape == (total, rows) and (total != rows or memory.get("length") == 0):
                memory["length"] = 0
                return values.mT
            if shape[0] == rows * total != rows:
                return values.view(rows, total, -1).mean(2)
            if shape[0] == rows:
                memory.setdefault("length", 1)
        if len(shape) == 3 and shape[0] == rows:
            lengths = [axis for axis in (1, 2) if shape[axis] == total]
            if len(lengths) == 1:
                memory["length"] = lengths[0]
            elif lengths and "length" not in memory:
                lengths = [2] if len(strides) > 2 and strides[2] > strides[1] else [1]
            elif lengths:
                lengths = [memory["length"]]
            if lengths:
                return values.mean(3 - lengths[0])
        return values

    def check(self, values: Tensor) -> None:
        """Raise ``ValueError`` if padding cannot be left out of ``values``, as :meth:`arrange` returned them."""
        if self.unknown:
            raise ValueError(
                "the attention mask does not say which tokens are real, so padding would be penalised; pass one of "
                "two axes, (batch, tokens)"
            )
        if self.mask is None or values.shape[:1] in ((self.mask.shape[0],), (1,), ()) and values.ndim < 3:
            return
        if not bool(self.mask.all()):
            raise ValueError(
                f"activations of {tuple(values.shape)} places, with a mask of {tuple(self.mask.shape)}: it cannot be "
                "told which of them are padding; use placement='pooled', or batches of rows of one length"
            )
