"""A method, what applying it reports, and how it is applied.

``apply`` swaps the class of the user's Hugging Face model for a subclass of the same name (as
``torch.nn.utils.parametrize`` does), whose ``forward`` adds the penalty to ``outputs.loss`` and whose
``save_pretrained`` writes the methods down. Parameters, hooks and wrappers of the user stay as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn

from klnorm_lib.methods.arguments import describe
from klnorm_lib.methods.contract import steps
from klnorm_lib.methods.contract.fresh_parts import adapter_hosts, is_peft, keep_fresh_parts
from klnorm_lib.methods.contract.guards import guard_encoder, missing_kept, modules_to_keep
from klnorm_lib.methods.contract.model_class import keep_in_adapter, regularised, save_methods_with, swap_class
from klnorm_lib.methods.contract.tuners import penalise_tuners
from klnorm_lib.methods.contract.undo import undo_on_error
from klnorm_lib.methods.model_card import base_name
from klnorm_lib.methods.penalty import Penalty, PenaltyLayer, penalty_layers
from klnorm_lib.methods.precision import check_trained_weights
from klnorm_lib.sites import unwrap

PROPERTIES = (
    "identity_at_init", "deterministic", "batch_invariant", "mean_preserving", "mergeable", "zero_inference_cost",
)  # fmt: skip
TRAINING_ONLY = frozenset(PROPERTIES) - {"mean_preserving"}  # of what changes the loss or the gradients alone


def drawing(draws: bool, mean_preserving: bool = True) -> frozenset[str]:
    """Properties of a method that multiplies by noise in training and is gone in evaluation; ``draws``: at all."""
    if not draws:
        return TRAINING_ONLY
    return TRAINING_ONLY - {"deterministic", "batch_invariant"} | ({"mean_preserving"} if mean_preserving else set())


class Method:
    """A frozen dataclass of hyperparameters that changes a model.

    ``name`` and ``version`` identify it in records and checkpoints. ``later``: fields that were added after the first
    records -> the value with which those were made; a field that has this value is left out of a run's hash.
    ``properties``, some of ``PROPERTIES``, depend on the hyperparameters; the common tests assert those that are
    stated, on models whose own dropout is off:

    * ``identity_at_init``: right after ``apply`` the logits of any batch are those of the model before, in evaluation
      mode and, where the method is ``deterministic``, in training mode.
    * ``deterministic``: the method draws nothing in training. Two forwards of one batch give equal losses and
      gradients.
    * ``batch_invariant``: the loss of a batch, penalty included, is the mean over its examples. The gradient of a batch
      is the mean of the gradients of its parts of equal size, padded alike.
    * ``mean_preserving``: the method draws in training, and the expectation of what a layer that draws gives out
      for a given input is what the layer gives out in evaluation mode.
    * ``mergeable``: after training, a model of the same class to which nothing was applied has the same logits in
      evaluation mode once it has loaded the changed model's ``state_dict``: it lacks no key, and keys of layers that
      the method added are left out.
    * ``zero_inference_cost``: a forward in evaluation mode runs the tensor operations of the model before, no other
      ones, in the same order (single numbers apart, such as the penalty's), on as many parameters.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    later: ClassVar[Mapping[str, object]] = MappingProxyType({})
    properties: frozenset[str] = frozenset()

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        describe(cls)

    def attach(self, model: nn.Module) -> list[str]:
        """Change ``model`` (unwrapped) in place; return one line a change; raise ``ValueError`` if nothing matched."""
        raise TypeError(f"{type(self).__name__} does not say how it changes a model; define attach(model)")

    def prepare(self, model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Method:
        """The method once it has seen the training rows; the same method where it need not see any.

        ``model``: as loaded, before :func:`apply`; it stays as it is. ``batches``: the collated training rows, labels
        included, each row once. Call it by hand before ``apply``; a study calls it for you.
        """
        return self

    def resolved(self, model: nn.Module) -> Method:
        """The method with everything written out that it looks up for ``model``: what is applied, saved and loaded."""
        return self

    def attach_saved(self, model: nn.Module) -> list[str]:
        """As :meth:`attach`, for a model whose trained weights are being loaded.

        Methods that keep something of the weights before training override it: it is not in the saved model.
        """
        return self.attach(model)

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        """Parameters that the method adds to a model whose head reads ``width`` features and has ``outputs`` logits.

        Raises ``TypeError`` for a method that has no formula, and ``ValueError`` where it needs more than these two.
        """
        raise TypeError(f"no formula for {type(self).__name__}; ask apply(model, method).added_parameters")

    def to_dict(self) -> dict:
        """The method as plain JSON: its name and every hyperparameter."""
        return {"name": self.name, **asdict(self)}


def whole_numbers(method: Method, *fields: str) -> None:
    """Raise ``ValueError`` when a field that counts something is not a whole number."""
    for field_name in fields:
        value = getattr(method, field_name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{field_name} must be a whole number, got {value!r}")


@dataclass
class Report:
    """What ``apply`` did: the changes, the parameters they added, and the callbacks a ``Trainer`` needs."""

    changed: list[str]
    added_parameters: int
    callbacks: list = field(default_factory=list)
    _layers: Callable[[], list[PenaltyLayer]] = field(default=lambda: [], repr=False)

    def step(self) -> None:
        """Advance every schedule by one optimiser step; call it after ``optimizer.step()`` in a hand-written loop."""
        for layer in self._layers():
            layer.advance()

    def __str__(self) -> str:
        lines = [f"  {line}" for line in self.changed] or ["  nothing (no method given)"]
        return "\n".join(["changed", *lines, f"added parameters: {self.added_parameters:,}"])


def apply(model: nn.Module, *methods: Method) -> Report:
    """Change ``model`` in place so that it trains with ``methods``; the report says what changed.

    ``model``: a Hugging Face model, bare or wrapped in peft. The penalty, if there is one, joins ``outputs.loss``
    in training mode, so a stock ``Trainer`` or any loop needs no change; pass ``report.callbacks`` to the
    ``Trainer`` when a schedule is used. Sets ``accepts_loss_kwargs = False``, without which the stock ``Trainer``
    does not divide a classification loss by the accumulation steps. Parts of a peft model's base that were drawn at
    random and that peft freezes join ``modules_to_save`` of its active adapter; the report names them. Where
    adapters come after ``apply``, such parts raise ``RuntimeError`` at the first training forward. The penalty
    of a tuner that peft leaves to the user (KaSA, MonteCLoRA) joins the loss as well. Warns of trained weights in
    bfloat16.

    Raises ``TypeError`` for something that is not a method or not a Hugging Face model, ``ValueError`` when a
    method matched nothing, two methods change the same layer, methods were applied before, or weights that would be
    trained are float16. A failed call leaves
    the model as it was.
    """
    return _apply(model, methods, "attach")


def apply_saved(model: nn.Module, *methods: Method) -> Report:
    """As :func:`apply`, for a model whose trained weights are being loaded."""
    return _apply(model, methods, "attach_saved")


def penalise_adapter(model: nn.Module, report: Report) -> None:
    """Add the penalties of an adapter that was loaded into ``model`` after its methods had been applied."""
    inner = unwrap(model)
    outers = _wrappers(model, inner)
    report.changed += penalise_tuners(adapter_hosts(outers, inner), outers, inner)
    report.callbacks = report.callbacks or callbacks_for(report._layers)
    guard_encoder(inner)


def _apply(model: nn.Module, methods: tuple[Method, ...], how: str) -> Report:
    for method in methods:
        if not isinstance(method, Method):
            raise TypeError(f"apply takes methods such as KLNorm(), got {method!r}")
    inner = unwrap(model)
    if getattr(inner, "_klnorm_methods", None) is not None:
        given = ", ".join(m.name for m in inner._klnorm_methods) or "none"
        raise ValueError(
            f"methods were already applied to this model ({given}); build it afresh and pass all methods to one apply()"
        )
    changed: list[str] = []
    outers = _wrappers(model, inner)
    with undo_on_error(inner) as undo:
        undo.remember([*outers, inner], inner.parameters())
        # First, so that methods change the copy that peft trains.
        hosts = adapter_hosts(outers, inner)
        for host in hosts:
            changed += keep_fresh_parts(host, inner, undo)
        before = sum(p.numel() for p in inner.parameters())
        methods = tuple(method.resolved(inner) for method in methods)
        if how == "attach":
            check_trained_weights(inner)
        for method in methods:
            changed += [f"{method.name}: {line}" for line in getattr(method, how)(inner)]
            for layer in penalty_layers(inner):
                layer.__dict__.setdefault("method_name", method.name)
        added = sum(p.numel() for p in inner.parameters()) - before
        swap_class(inner, regularised)
        inner._klnorm_methods = methods
        inner._klnorm_base = base_name(inner)
        inner._klnorm_auxiliary = None
        inner._klnorm_pending = False
        inner._klnorm_seen = set()  # of what is looked at once; the replicas of DataParallel share it
        for outer in outers:
            outer.accepts_loss_kwargs = False
            if is_peft(outer):
                save_methods_with(outer)
        for host in hosts:
            keep_in_adapter(host, inner, undo)
        changed += penalise_tuners(hosts, outers, inner)
        inner._klnorm_added = modules_to_keep(inner)
        inner._klnorm_missing = len(missing_kept(inner))
    guard_encoder(inner)
    steps.watch(inner)

    layers = functools.partial(penalty_layers, inner)  # not a closure: it is copied and pickled with the model
    return Report(changed, added, callbacks_for(layers), layers)


def callbacks_for(layers: Callable[[], list[PenaltyLayer]]) -> list:
    """What a Trainer needs for the ``layers`` of a model: nothing where there are none."""
    if not layers():
        return []
    from klnorm_lib.methods.callback import PenaltyCallback

    return [PenaltyCallback(layers)]


def auxiliary_loss(model: nn.Module) -> Tensor:
    """The weighted penalty of the last forward (scalar, nats times beta); 0 for methods without one.

    In training mode it is already inside ``outputs.loss``: adding it there again raises ``RuntimeError``. Add it
    only to a loss that you computed yourself from the logits, weighed as the batch's mean is. The Trainer does not
    divide what a ``compute_loss_func`` returns by the accumulation steps; there a batch has the share
    ``len(labels) / num_items_in_batch``: return ``(sum of the task losses + auxiliary_loss(model) * len(labels)) /
    num_items_in_batch``. Raises ``ValueError`` if no method was applied, and
    ``RuntimeError`` before the first forward.
    """
    inner = unwrap(model)
    if getattr(inner, "_klnorm_methods", None) is None:
        raise ValueError("no method was applied to this model; call klnorm_lib.apply(model, ...) first")
    if inner._klnorm_auxiliary is None:
        raise RuntimeError("no forward yet: call model(**batch) before auxiliary_loss(model)")
    inner._klnorm_pending = False
    total = inner._klnorm_auxiliary
    # Only what a gradient can come back through could be counted twice.
    return Penalty.wrap(total) if total.requires_grad else total


def _wrappers(model: nn.Module, inner: nn.Module) -> list[nn.Module]:
    """``model`` and whatever lies between it and ``inner``, from the outside in."""
    found = [m for m in model.modules() if m is inner or any(child is inner for child in m.modules())]
    return found if inner in found else [model]
