"""The fast way: one backward pass for a batch, its gradients separated by sequence with hooks on the modules."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.batches import one_row, take
from klnorm_lib.probes.fisher.func import Func
from klnorm_lib.probes.fisher.loop import Loop
from klnorm_lib.probes.fisher.losses import Loss
from klnorm_lib.probes.fisher.selection import Selection, output_layer
from klnorm_lib.probes.fisher.taps import Taps

LANGUAGE_MODELS = ("masked", "causal", "seq2seq")
TRIED = 2  # sequences that are compared with the loop before the first batch


class Hooks:
    """Adds up squared gradients of the known modules by :class:`Taps`, those of the others by ``torch.func``.

    Before the first batch two of its sequences are computed by the loop as well. Parameters where the two disagree
    (because a module sees no batch axis, or a parameter is used outside of its module) go to ``torch.func``, or if
    that cannot follow the model either, to the loop; a warning names them.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, parameters: Mapping[str, nn.Parameter], kind: str | None = None
    ) -> None:
        self.model, self.loss, self.kind, self.parameters = model, loss, kind, dict(parameters)
        self._taps: Taps | None = None
        self._rest: Func | Loop | None = None
        self._selects = False

    @property
    def sums(self) -> dict[str, Tensor]:
        """Sums of squares by parameter name."""
        if self._taps is None:
            return {n: torch.zeros(p.shape, device=p.device) for n, p in self.parameters.items()}
        found = self._taps.sums | (self._rest.sums if self._rest else {})
        return {name: found[name] for name in self.parameters}

    def add(self, batch: Mapping[str, Any], rows: int) -> Tensor:
        """Add the ``rows`` sequences of ``batch``; returns their losses, (rows,)."""
        if self._taps is None and not self._prepare(batch, rows):
            return torch.cat([self.loss(self.model, one_row(batch, i, rows)).detach() for i in range(rows)])
        values = self._run(self._taps, batch, rows, self._selects)
        if self._taps.without_batch:
            raise RuntimeError(
                f"{_listed(set(self._taps.without_batch.values()))} had a batch axis in the first batch and has none "
                "in this one; use method='func' or method='loop'"
            )
        if self._rest:
            self._rest.add(batch, rows)
        return values

    def close(self) -> None:
        """Take all hooks off the model."""
        if self._taps is not None:
            self._taps.close()
        if self._rest is not None:
            self._rest.close()

    def _run(self, taps: Taps, batch: Mapping[str, Any], rows: int, selects: bool) -> Tensor:
        frozen = [p for p in self.model.parameters() if p.requires_grad]
        try:
            for p in frozen:  # so that backward makes no gradient of the batch's sum
                p.requires_grad_(False)
            if not selects:
                return taps.run(rows, lambda: self.loss(self.model, batch))
            selection = Selection(self.kind, batch)
            return taps.select(output_layer(self.model), selection, lambda: selection.loss(self.model))
        finally:
            for p in frozen:
                p.requires_grad_(True)

    def _prepare(self, batch: Mapping[str, Any], rows: int) -> bool:
        """Find out what the hooks can do, on a few sequences; False if the loss of one of these is not finite."""
        few = take(batch, torch.arange(TRIED, device=next(iter(self.parameters.values())).device) % rows)
        reference = Loop(self.model, self.loss, self.parameters)
        losses = reference.add(few, TRIED)
        if not losses.isfinite().all():
            return False
        reasons, expand = self._try(few, losses, reference.sums)
        if reasons:
            self._fall_back(reasons, few, reference.sums)
        self._taps = Taps(self.model, {n: p for n, p in self.parameters.items() if n not in reasons}, expand)
        return True

    def _try(self, few: Mapping[str, Any], losses: Tensor, reference: Mapping[str, Tensor]) -> tuple[dict, bool]:
        """Reasons by name of the parameters that need another way, and whether position ids are to be expanded."""
        selects = self.kind in LANGUAGE_MODELS and output_layer(self.model) is not None
        for expand, self._selects in ((True, True), (True, False), (False, False)):
            if self._selects and not selects:
                continue
            taps = Taps(self.model, self.parameters, expand)
            try:
                got = self._run(taps, few, TRIED, self._selects)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                reasons = dict.fromkeys(self.parameters, f"a pass with hooks failed: {error}")
                continue
            finally:
                taps.close()
            if torch.allclose(got, losses, rtol=self._tolerance(), atol=1e-6):
                return self._doubts(taps, reference), expand
            reasons = {}
        if not reasons:
            raise ValueError(
                f"two sequences have the losses {losses.tolist()} alone and {got.tolist()} in one batch: a sequence's "
                "loss must not depend on the others in its batch, nor be drawn at random"
            )
        return reasons, False

    def _doubts(self, taps: Taps, reference: Mapping[str, Tensor]) -> dict[str, str]:
        """Reasons by name of the parameters whose squares the hooks cannot get."""
        covered, owners = taps.covered, _owners(self.model)
        tolerance = self._tolerance()
        largest = max(float(r.mean()) for r in reference.values())
        found = {}
        for name, true in reference.items():
            if name not in covered:
                found[name] = f"{owners[name]} is not a known kind of module"
            elif name in taps.without_batch:
                found[name] = f"{taps.without_batch[name]} sees no batch axis"
            else:
                # What should be zero (a key's bias) is rounding noise, whose square no two ways agree on.
                noise = largest * (tolerance / 60) ** 2 * true.numel() ** 0.5
                if not (taps.sums[name] - true).norm() <= tolerance * true.norm() + noise:
                    found[name] = f"{owners[name]} does not explain the gradient of its parameter"
        return found

    def _fall_back(self, reasons: Mapping[str, str], few: Mapping[str, Any], reference: Mapping[str, Tensor]) -> None:
        """Choose the way for the parameters that hooks cannot do, and say so."""
        rest = {n: self.parameters[n] for n in reasons}
        way, self._rest = "torch.func", Func(self.model, self.loss, rest)
        try:
            self._rest.add(few, TRIED)
            largest = max(float(reference[n].norm()) for n in rest)
            right = all((self._rest.sums[n] - reference[n]).norm() <= self._tolerance() * largest for n in rest)
        except RuntimeError:
            right = False
        if right:
            self._rest = Func(self.model, self.loss, rest)
        else:
            way, self._rest = "a loop over sequences", Loop(self.model, self.loss, rest)
        warnings.warn(
            f"hooks cannot separate the sequences in {len(rest)} of {len(self.parameters)} parameters, which are "
            f"computed by {way}, slower: {_listed(set(reasons.values()))}",
            stacklevel=5,
        )

    def _tolerance(self) -> float:
        """Relative difference that rounding explains, 1e-3 in single precision."""
        return max(1e-3, 30 * max(torch.finfo(p.dtype).eps for p in self.parameters.values()))


def _owners(model: nn.Module) -> dict[str, str]:
    """Name of every parameter -> its module, and that module's class."""
    modules = {path: type(module).__name__ for path, module in model.named_modules()}
    split = {name: name.rpartition(".")[0] for name, _ in model.named_parameters()}
    return {name: f"{path or 'the model'} ({modules[path]})" for name, path in split.items()}


def _listed(texts: set[str], most: int = 8) -> str:
    some = sorted(texts)
    return "; ".join(some[:most]) + (f"; and {len(some) - most} more" if len(some) > most else "")
