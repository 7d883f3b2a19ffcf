"""The fast way: one backward pass for a batch, its gradients separated by sequence with hooks on the modules."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.batches import one_row, take
from klnorm_lib.probes.fisher.func import Func
from klnorm_lib.probes.fisher.loop import Loop
from klnorm_lib.probes.fisher.losses import Loss
from klnorm_lib.probes.fisher.taps import Taps
from klnorm_lib.probes.fisher.trial import Plan, hooked_pass, plan_for, tolerance

TRIED = 2  # sequences that are compared with the loop before the first batch


class Hooks:
    """Adds up squared gradients of the supported modules by :class:`Taps`, those of the others by ``torch.func``.

    Before the first batch two of its sequences are computed by the loop as well. Parameters where the two disagree
    (because a module sees no batch axis, or a parameter is used outside of its module) go to ``torch.func``, or if
    that cannot follow the model either, to the loop; a warning names them.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, parameters: Mapping[str, nn.Parameter], kind: str | None = None
    ) -> None:
        self.model, self.loss, self.kind, self.parameters = model, loss, kind, dict(parameters)
        self._plan: Plan | None = None
        self._taps: Taps | None = None
        self._others: list[Func | Loop] = []

    @property
    def sums(self) -> dict[str, Tensor]:
        """Sums of squares by parameter name."""
        found = dict(self._taps.sums) if self._taps else {}
        for other in self._others:
            found |= other.sums
        none = {n: torch.zeros(p.shape, device=p.device) for n, p in self.parameters.items() if n not in found}
        return {name: (found | none)[name] for name in self.parameters}

    def add(self, batch: Mapping[str, Any], rows: int) -> Tensor:
        """Add the ``rows`` sequences of ``batch``; returns their losses, (rows,)."""
        if self._taps is None and not self._prepare(batch, rows):
            return torch.cat([self.loss(self.model, one_row(batch, i, rows)).detach() for i in range(rows)])
        values = hooked_pass(self._taps, self.model, self.loss, self.kind, self._plan, batch, rows)
        if self._taps.without_batch:
            raise RuntimeError(
                f"{_listed(self._taps.without_batch.values())}: had a batch axis in the first batch and has none in "
                "this one; use method='func' or method='loop'"
            )
        self._hear_silent(batch, rows)
        for other in self._others:
            other.add(batch, rows)
        return values

    def close(self) -> None:
        """Take all hooks off the model."""
        if self._taps is not None:
            self._taps.close()

    def _prepare(self, batch: Mapping[str, Any], rows: int) -> bool:
        """Find out what the hooks can do, on a few sequences; False if the loss of one of these is not finite."""
        few = _few(batch, rows)
        reference = Loop(self.model, self.loss, self.parameters)
        losses = reference.add(few, TRIED)
        if not losses.isfinite().all():
            return False
        self._plan = plan_for(self.model, self.loss, self.kind, self.parameters, reference, losses, few)
        if self._plan.reasons:
            self._fall_back(self._plan.reasons, few, reference)
        left = self._plan.reasons.keys() | self._plan.silent
        hooked = {n: p for n, p in self.parameters.items() if n not in left}
        self._taps = Taps(self.model, hooked, self._plan.expand)
        return True

    def _fall_back(self, reasons: Mapping[str, str], few: Mapping[str, Any], reference: Loop) -> None:
        """Choose another way for some parameters, and say so."""
        some = {n: self.parameters[n] for n in reasons}
        way, other = "torch.func", Func(self.model, self.loss, some)
        try:
            other.add(few, TRIED)
            largest = max(float(reference.sums[n].norm()) for n in some)
            allowed = tolerance(self.parameters) * largest
            right = all((other.sums[n] - reference.sums[n]).norm() <= allowed for n in some)
        except RuntimeError:
            right = False
        if right:
            self._others.append(Func(self.model, self.loss, some))
        else:
            way = "a loop over the sequences"
            self._others.append(Loop(self.model, self.loss, some))
        warnings.warn(
            f"hooks cannot separate the sequences in {len(some)} of {len(self.parameters)} parameters; {way} computes "
            f"them, which takes longer: {_listed(reasons.values())}",
            stacklevel=6,
        )

    def _hear_silent(self, batch: Mapping[str, Any], rows: int) -> None:
        """A parameter that the loss did not depend on so far may come into play: from here on it goes another way."""
        woken = [n for n in self._plan.silent if self.parameters[n].grad is not None]
        if not woken:
            return
        for name in woken:
            self.parameters[name].grad = None
            self._plan.silent.discard(name)
        few, reference = _few(batch, rows), Loop(self.model, self.loss, {n: self.parameters[n] for n in woken})
        reference.add(few, TRIED)
        self._fall_back(dict.fromkeys(woken, f"{', '.join(sorted(woken))} came into play later"), few, reference)


def _few(batch: Mapping[str, Any], rows: int) -> dict[str, Any]:
    device = next(v.device for v in batch.values() if isinstance(v, Tensor))
    return take(batch, torch.arange(TRIED, device=device) % rows)


def _listed(texts: Iterable[str], most: int = 8) -> str:
    some = sorted(set(texts))
    return "; ".join(some[:most]) + (f"; and {len(some) - most} more" if len(some) > most else "")
