"""The fast way: one backward pass for a batch, its gradients separated by sequence with hooks on the modules."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.batches import one_row, shapes, unlike_rows
from klnorm_lib.probes.fisher.func import Func
from klnorm_lib.probes.fisher.loop import Loop
from klnorm_lib.probes.fisher.losses import Loss
from klnorm_lib.probes.fisher.rounding import Measured
from klnorm_lib.probes.fisher.squares import zeros_for
from klnorm_lib.probes.fisher.taps import Taps, Unforeseen
from klnorm_lib.probes.fisher.trial import Plan, Subject, hooked_pass, plan_for, tried_again

TRIED = 3  # sequences of a batch that are compared with the loop
TRIALS = 3  # batches of different lengths in which they are


class Hooks:
    """Adds up squared gradients of the supported modules by :class:`Taps`, those of the others by ``torch.func``.

    Some sequences of the first batch, and of the next ones that have other lengths, are computed by the loop as well.
    Parameters where the two disagree (because a module sees no batch axis, or a parameter is used outside of its
    module) go to ``torch.func``, or if that cannot follow the model either, to the loop; a warning names them. So do
    those that a later batch uses in another way.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, parameters: Mapping[str, nn.Parameter], kind: str | None = None
    ) -> None:
        self.model, self.loss, self.parameters = model, loss, dict(parameters)
        self._subject = Subject(model, loss, self.parameters, kind)
        self._plan: Plan | None = None
        self._taps: Taps | None = None
        self._others: list[Func | Loop] = []
        self._moved: dict[str, Tensor] = {}  # what hooks had summed of parameters that go another way since
        self._tried: set[tuple] = set()

    @property
    def sums(self) -> dict[str, Tensor]:
        """Sums of squares by parameter name."""
        found = dict(self._taps.sums) if self._taps else {}
        for other in self._others:
            found |= {n: total + self._moved[n] if n in self._moved else total for n, total in other.sums.items()}
        none = zeros_for({n: p for n, p in self.parameters.items() if n not in found})
        return {name: (found | none)[name] for name in self.parameters}

    def clear(self) -> None:
        """Begin sums anew, with what was found out about the model."""
        self._moved.clear()
        for part in (self._taps, *self._others):
            for total in part.sums.values() if part else ():
                total.zero_()

    def prepare(self, batch: Mapping[str, Any], rows: int) -> bool:
        """Find out what hooks can do, on a few sequences; False if the loss of one of these is not finite."""
        key = shapes(batch), rows > 1
        alone = not any(several for _, several in self._tried)
        if key in self._tried or (len(self._tried) >= TRIALS and not (rows > 1 and alone)):
            return True
        hooked = self.parameters if self._plan is None else self._hooked()
        if not hooked:  # all of them go another way already
            return True
        few, reference = unlike_rows(batch, rows, TRIED), Measured(self.model, self.loss, hooked)
        losses = reference.add(few, TRIED)
        if not losses.isfinite().all():
            return False
        self._tried.add(key)
        if self._plan is None:
            self._plan = plan_for(self._subject, reference, losses, few)
            self._go_on(self._plan.reasons, few, reference)
        else:
            again = tried_again(self._plan, self._subject, hooked, reference, losses, few)
            for name, forms in again.forms.items():
                self._plan.forms.setdefault(name, set()).update(forms)
            self._go_on(again.reasons, few, reference)
        return True

    def add(self, batch: Mapping[str, Any], rows: int) -> Tensor:
        """Add the ``rows`` sequences of ``batch``; returns their losses, (rows,)."""
        if not self.prepare(batch, rows):
            return torch.cat([self.loss(self.model, one_row(batch, i, rows)).detach() for i in range(rows)])
        values = None
        while values is None and (self._taps.sums or self._plan.silent):
            try:
                values = hooked_pass(self._taps, self._subject, self._plan, batch, rows)
            except Unforeseen as found:
                reasons = found.reasons
                if found.failed:
                    reasons = dict.fromkeys([*self._taps.sums, *self._plan.silent], found.failed)
                    self._plan.silent.clear()
                self._move(reasons, batch, rows)
        self._hear_silent(batch, rows)
        for other in self._others:
            losses = other.add(batch, rows)
            values = losses if values is None else values
        return values

    def close(self) -> None:
        """Take all hooks off the model."""
        if self._taps is not None:
            self._taps.close()

    def _hooked(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.parameters.items() if n not in self._plan.reasons and n not in self._plan.silent}

    def _go_on(self, reasons: Mapping[str, str], few: Mapping[str, Any], reference: Measured) -> None:
        """Leave to hooks what they can do, and the parameters of ``reasons`` to another way."""
        old, self._plan.reasons = self._taps, self._plan.reasons | reasons
        if reasons:
            if old is not None:
                self._moved |= {name: old.sums[name] for name in reasons if name in old.sums}
            self._others += self._other_ways(reasons, few, reference)
        if old is None or reasons:
            self.close()
            sums = None if old is None else old.sums
            self._taps = Taps(self.model, self._hooked(), self._plan.expand, self._plan.forms, sums)

    def _other_ways(self, reasons: Mapping[str, str], few: Mapping[str, Any], reference: Measured) -> list[Func | Loop]:
        """What computes some parameters instead of hooks; says so."""
        some = {n: self.parameters[n] for n in reasons}
        mapped = Func(self.model, self.loss, some)
        try:
            mapped.add(few, TRIED)
            wrong = reference.wrong(mapped.sums)
            right = {n: p for n, p in some.items() if n not in wrong}
        except Exception:  # whatever vmap cannot do, the loop can
            right = {}
        rest = {n: p for n, p in some.items() if n not in right}
        ways = {"torch.func": (Func, right), "a loop over the sequences": (Loop, rest)}
        ways = {name: way for name, way in ways.items() if way[1]}
        warnings.warn(
            f"hooks cannot separate the sequences in {len(some)} of {len(self.parameters)} parameters; "
            f"{' and '.join(ways)} computes them, which takes longer: {_listed(reasons.values())}",
            stacklevel=6,
        )
        return [kind(self.model, self.loss, parameters) for kind, parameters in ways.values()]

    def _move(self, reasons: Mapping[str, str], batch: Mapping[str, Any], rows: int) -> None:
        """Parameters that this batch uses in another way than those before it: from here on they go another way."""
        few = unlike_rows(batch, rows, TRIED)
        reference = Measured(self.model, self.loss, {n: self.parameters[n] for n in reasons})
        reference.add(few, TRIED)
        self._go_on(reasons, few, reference)

    def _hear_silent(self, batch: Mapping[str, Any], rows: int) -> None:
        """A parameter that the loss did not depend on so far may come into play: from here on it goes another way."""
        woken = [n for n in self._plan.silent if self.parameters[n].grad is not None]
        if not woken:
            return
        for name in woken:
            self.parameters[name].grad = None
            self._plan.silent.discard(name)
        self._move(dict.fromkeys(woken, f"{', '.join(sorted(woken))} came into play later"), batch, rows)


def _listed(texts: Iterable[str], most: int = 8) -> str:
    some = sorted(set(texts))
    return "; ".join(some[:most]) + (f"; and {len(some) - most} more" if len(some) > most else "")
