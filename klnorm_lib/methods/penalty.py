"""Layers with a penalty, the bookkeeping between them and the model's forward, and the penalty's own type."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor, nn

from klnorm_lib.methods.monitoring import means_of
from klnorm_lib.methods.schedule import Schedule
from klnorm_lib.sites.axes import Positions

MOST_MISSED = 8
_REMEDY = "Pass callbacks=report.callbacks to the Trainer, or call report.step() after optimizer.step()"
_NEVER_STARTED = (
    "the {kind} schedule of beta was never started: parameters have moved, yet no step was counted. " + _REMEDY
)
_STOPPED = (
    "the {kind} schedule of beta stands still: {missed} optimiser steps have passed since its last one. " + _REMEDY
)


def check_strengths(method: object, *fields: str) -> None:
    """Make fields of a frozen dataclass that weigh a penalty floats.

    Raises ``TypeError`` for what is not a number, ``ValueError`` for what is negative or not finite.
    """
    for name in fields:
        value = getattr(method, name)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number of at least 0, got {value!r}")
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
        object.__setattr__(method, name, float(value))


class PenaltyLayer(nn.Module):
    """Base of every layer with a penalty; the model's forward opens it, collects, and closes it.

    The step counter is a buffer, so that a resumed run continues its schedule where it stopped; with ``keep_step``
    false it is not saved, for layers whose weight is constant.
    """

    added_by_klnorm = True
    samples = 1  # rows that the layer makes of each in training; the labels are repeated
    before_head = False  # whether it reads what the head classifies, rather than what the encoder passes on
    method_name = "penalty"  # of the method that added it
    second_pass = False  # whether the model runs twice in training, for :meth:`compare`
    # What a head reads at every position waits for the logits, which say where they come from; see settle().
    _waits = False
    _late: list[tuple[Callable[[Tensor], None], Tensor]] = []
    _scores: Tensor | None = None
    _classified: Tensor | None = None
    missed = 0  # optimiser steps on the model since the schedule was last advanced

    def __init__(self, schedule: Schedule, keep_step: bool = True) -> None:
        super().__init__()
        self.schedule = schedule
        self.register_buffer("step", torch.zeros((), dtype=torch.long), persistent=keep_step)
        self.penalties: list[Tensor] = []
        self._open = False
        self._started = False
        self._first_version: int | None = None
        self.register_load_state_dict_post_hook(_forget)
        self._grad_expected = False
        self._repeats = 1
        self._positions: Callable[[int], Tensor | None] | None = None

    def enter(self, samples: int, grad_expected: bool, positions: Callable[[int], Tensor | None]) -> None:
        """Open the layer for one forward of the model."""
        self.penalties, self._open = [], True
        self._late, self._scores, self._classified, self._waits = [], None, None, self.before_head
        self._repeats = min(samples, self.samples) if samples > 1 else 1
        self._grad_expected, self._positions = grad_expected, positions

    def finish(self, model: nn.Module, outputs: object, as_tuple: bool) -> None:
        """Add what is known only when ``model`` has given its ``outputs``; ``as_tuple``: they leave it in a tuple."""

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """The weighted penalty, (), of the logits of two passes, each (batch, outputs); for a ``second_pass``."""
        raise TypeError(f"{type(self).__name__} does not say how it compares two passes; define compare(first, second)")

    def leave(self) -> None:
        """Close it: a recomputation during backward neither penalises twice nor updates statistics twice.

        The positions stay, because that recomputation must save the very tensors of the first pass.
        """
        self.penalties, self._open = [], False
        self._late, self._scores = [], None

    def __getstate__(self) -> dict:
        kept = {k: v for k, v in self.__dict__.items() if k != "_klnorm_means"}
        return kept | {"penalties": [], "_positions": None, "_late": [], "_scores": None, "_classified": None}

    def scored(self, scores: Tensor) -> None:
        """What the head made of this layer's output, (batch, outputs) or (batch, length, outputs)."""
        if self._open and scores.ndim == 3:
            self._scores = scores.detach()

    def settle(self, logits: Tensor | None) -> None:
        """Penalise what the head read at every position, now that ``logits`` say which of them was classified.

        It is the one whose scores the model returned; with logits of every position, or an average, all real ones.
        """
        late, self._late, self._waits = self._late, [], False
        scores, self._scores = self._scores, None
        if scores is not None and logits is not None and logits.shape == (scores.shape[0], scores.shape[2]):
            here = (scores.to(logits.dtype) == logits.detach().unsqueeze(1)).all(-1)
            real = None if self._positions is None else self._positions(scores.shape[1])
            real = torch.ones_like(here) if real is None else real.to(here.device)
            both = here & real  # scores may be equal at several positions, those of a head that is still zero say
            found = torch.where(here.any(1, keepdim=True), here, real)
            found = torch.where(both.any(1, keepdim=True), both, found)
            # In half precision a few positions may have the very scores of the last one, which was classified.
            last = found & (found.flip(1).cumsum(1).flip(1) == 1)
            self._classified = torch.where((found == real).all(1, keepdim=True), found, last)
        for call, kl in late:
            call(kl)
        self._waits = self.before_head

    def advance(self, step: int | None = None) -> None:
        """One optimiser step has passed (or: ``step`` of them since training began)."""
        self._started, self.missed = True, 0
        if step is None:
            self.step += 1
        else:
            self.step.fill_(step)

    def positions(self, x: Tensor) -> Tensor | None:
        """Positions of ``x`` (batch, length, features) that count, (batch, length) bool; None if all do.

        The real ones; before the head of a model that classifies one position of each example, that one alone.
        """
        if x.ndim != 3:
            return None
        if self._classified is not None and self._classified.shape == x.shape[:2]:
            return self._classified
        return None if self._positions is None else self._positions(x.shape[1])

    def penalise(self, kl: Tensor, activation: Tensor | None = None) -> None:
        """Add beta times the mean of ``kl``, shape () or (batch,) or (batch, length), to the model's penalty.

        With ``activation``, what the ``kl`` was read from, other orders of axes are recognised (``sites.axes``). A
        parameter given as activation, such as a table of relative positions, counts as one example whose positions
        are all real. Raises ``ValueError`` in training if it cannot be told which positions are padding.
        Over positions the mean is taken inside each sequence first, real positions only, so that an example's
        share does not depend on its neighbours' lengths.
        """
        if self._open and self.training and self._grad_expected and not torch.is_grad_enabled():
            raise RuntimeError(
                "a penalised layer runs without gradient, and its penalty would be lost silently: inside reentrant "
                "gradient checkpointing (pass gradient_checkpointing_kwargs={'use_reentrant': False}), or where the "
                "model's own code runs so (use placement='pooled' where the method has it)"
            )
        if self._open:
            self._check_started()
        if isinstance(activation, nn.Parameter):
            kl = kl.mean()
        elif activation is not None and isinstance(self._positions, Positions) and kl.ndim:
            order = self.__dict__.setdefault("_axes", {})  # as seen so far; layers pickled before have none
            kl = self._positions.arrange(kl, order, activation.stride())
            if self._open and self.training:
                self._positions.check(kl)
        if kl.ndim == 2 and self._waits:
            if self._open:  # not when it is computed again during backward
                self._late.append((self.penalise, kl))
            return
        if kl.ndim == 2:
            mask = self.positions(kl.unsqueeze(-1))
            if mask is not None and mask.shape != kl.shape:
                mask = None  # called on its own, outside the model's forward, whose last mask is of another batch
            weight = torch.ones_like(kl) if mask is None else mask.to(kl)
            kl = (kl * weight).sum(1) / weight.sum(1).clamp_min(1.0)
        weighted = self.schedule.beta_at(self.step) * kl.mean()
        if self._open:
            self.penalties.append(weighted)

    def note(self, penalty: Tensor) -> None:
        """Have the log know the weighted penalty, (), of one forward, and the weight."""
        means = means_of(self)
        if means is not None:
            means.add(penalty=penalty, beta=torch.as_tensor(self.schedule.beta_at(self.step)))

    @torch.no_grad()
    def note_features(self, kl: Tensor) -> None:
        """Have the log know the KL of each feature, (features,), (batch, features) or (batch, length, features)."""
        means = means_of(self)
        if means is None or not self._open:
            return
        if kl.ndim == 3 and self._waits:
            self._late.append((self.note_features, kl.detach()))
            return
        mask = self.positions(kl)
        if kl.ndim == 3:
            weight = kl.new_ones(kl.shape[:2]) if mask is None or mask.shape != kl.shape[:2] else mask.to(kl)
            kl = torch.einsum("blf,bl->bf", kl, weight) / weight.sum(1, keepdim=True).clamp_min(1.0)
        means.add(features=kl.mean(0) if kl.ndim == 2 else kl)

    def _check_started(self) -> None:
        if self.schedule.kind == "constant" or not (self.training and self._grad_expected):
            return
        if self._started:
            # A loop may take a few steps (of several optimisers, say) for one of the schedule.
            if self.missed > MOST_MISSED and not self.schedule.is_over(self.step):
                raise RuntimeError(_STOPPED.format(kind=self.schedule.kind, missed=self.missed))
            return
        # Version numbers tell of updates without an optimiser; only an optimiser's steps tell of fused ones.
        version = sum(p._version for p in self.parameters())
        if self._first_version is None:
            self._first_version = version
        if self.missed or version != self._first_version:
            raise RuntimeError(_NEVER_STARTED.format(kind=self.schedule.kind))


def penalty_layers(model: nn.Module) -> list[PenaltyLayer]:
    """The layers of ``model`` that have a penalty."""
    return [m for m in model.modules() if isinstance(m, PenaltyLayer)]


class Penalty(Tensor):
    """The auxiliary loss as handed to the user: an ordinary scalar that refuses to be counted twice."""

    @staticmethod
    def wrap(value: Tensor, node=None) -> Tensor:
        """``value`` as a ``Penalty``, sharing its graph; ``node``: where the penalty joined the loss, if not here."""
        node = value.grad_fn if node is None else node
        wrapped = value.as_subclass(Penalty)
        wrapped._node = node
        return wrapped

    def __format__(self, spec: str) -> str:
        return format(self.detach().as_subclass(Tensor), spec)  # torch formats its own class only

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_").removeprefix("r").removeprefix("i")
        given = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
        own = next((v for v in given if isinstance(v, Penalty)), None)
        node = getattr(own, "_node", None)
        if name in _SUMS and any(_contains(v, node) for v in given if not isinstance(v, Penalty)):
            raise RuntimeError(
                "the auxiliary loss is already inside outputs.loss (training mode); adding it again counts it "
                "twice. Use it for logging, or add it to a loss computed from the logits yourself"
            )
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            if isinstance(result, Tensor) and (name in _SCALINGS or (name in _SUMS and len(given) == 1)):
                return Penalty.wrap(result.as_subclass(Tensor), node)  # scaled, or beside a number, it is still there
            return result.as_subclass(Tensor) if isinstance(result, Penalty) and result is not args[0] else result


_SUMS = {"add", "sub", "subtract"}
_SCALINGS = {"mul", "multiply", "div", "divide", "true_divide", "truediv"}


def _contains(loss: Tensor, node, depth: int = 8) -> bool:
    """Whether ``node`` is an ancestor of ``loss`` within ``depth`` operations (scaled and averaged losses)."""
    frontier = {loss.grad_fn} - {None}
    for _ in range(depth if node is not None else 0):
        if node in frontier:
            return True
        frontier = {below for above in frontier for below, _ in above.next_functions} - {None}
    return False


def _forget(layer: PenaltyLayer, _incompatible) -> None:
    layer._first_version = None  # loading moves parameters too, and is no optimiser step
