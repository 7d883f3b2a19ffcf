"""The contract between a method and a user's model: apply, penalise once, save, load.

``apply`` swaps the class of the user's Hugging Face model for a subclass of the same name (as
``torch.nn.utils.parametrize`` does), whose ``forward`` adds the penalty to ``outputs.loss`` and whose
``save_pretrained`` writes the methods down. Parameters, hooks and wrappers of the user stay as they are.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from klnorm_lib.methods.passes import Comparison, loss_and_logits, twice
from klnorm_lib.methods.penalty import Penalty, PenaltyLayer
from klnorm_lib.sites import unwrap
from klnorm_lib.sites.positions import real_positions

CONFIG_KEY = "klnorm"
FORMAT = 1
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
    """Change ``model`` in place so that it trains with ``methods``; tells what changed.

    ``model``: a Hugging Face model, bare or wrapped in peft. The penalty, if there is one, joins ``outputs.loss``
    in training mode, so a stock ``Trainer`` or any loop needs no change; pass ``report.callbacks`` to the
    ``Trainer`` when a schedule is used. Sets ``accepts_loss_kwargs = False``, without which the stock ``Trainer``
    does not divide a classification loss by the accumulation steps.

    Raises ``TypeError`` for something that is not a method or not a Hugging Face model, ``ValueError`` when a
    method matched nothing, two methods claim the same place, or methods were applied before. A failed call leaves
    the model as it was.
    """
    return _apply(model, methods, "attach")


def apply_saved(model: nn.Module, *methods: Method) -> Report:
    """As :func:`apply`, for a model whose trained weights are being loaded."""
    return _apply(model, methods, "attach_saved")


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
    before = sum(p.numel() for p in inner.parameters())
    changed: list[str] = []
    outers = _wrappers(model, inner)
    with _undo_on_error(inner, outers):
        methods = tuple(method.resolved(inner) for method in methods)
        for method in methods:
            changed += [f"{method.name}: {line}" for line in getattr(method, how)(inner)]
        added = sum(p.numel() for p in inner.parameters()) - before
        _swap_class(inner, _regularised)
        inner._klnorm_methods = methods
        inner._klnorm_auxiliary = None
        inner._klnorm_pending = False
        for outer in outers:
            outer.accepts_loss_kwargs = False
            # By name, so that peft need not be installed.
            if any(cls.__name__ == "PeftModel" for cls in type(outer).__mro__):
                _keep_in_adapter(outer, inner)
                save_methods_with(outer)

    layers = functools.partial(_penalty_layers, inner)  # not a closure: it is copied and pickled with the model
    callbacks = []
    if layers():
        from klnorm_lib.methods.callback import PenaltyCallback

        callbacks.append(PenaltyCallback(layers))
    return Report(changed, added, callbacks, layers)


def auxiliary_loss(model: nn.Module) -> Tensor:
    """The weighted penalty of the last forward (scalar, nats times beta); 0 for methods without one.

    In training mode it is already inside ``outputs.loss``: adding it there again raises ``RuntimeError``. Add it
    only to a loss that you computed yourself from the logits. Raises ``ValueError`` if no method was applied, and
    ``RuntimeError`` before the first forward.
    """
    inner = unwrap(model)
    if getattr(inner, "_klnorm_methods", None) is None:
        raise ValueError("no method was applied to this model; call klnorm_lib.apply(model, ...) first")
    if inner._klnorm_auxiliary is None:
        raise RuntimeError("no forward yet: call model(**batch) before auxiliary_loss(model)")
    inner._klnorm_pending = False
    return inner._klnorm_auxiliary


def save_methods_with(peft_model: nn.Module) -> None:
    """Have ``peft_model.save_pretrained`` write the methods of the model inside down beside the adapter."""
    _swap_class(peft_model, _saving_methods)


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` at dotted ``path`` of ``model``, remembering the old one in case ``apply`` fails later."""
    parent_path, _, name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    _set(model, parent, name, module)


def add_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Hang ``module`` into ``model`` as ``name``, to be taken off again in case ``apply`` fails later."""
    if hasattr(model, name):
        raise ValueError(f"{type(model).__name__} has something called {name!r} already")
    model.add_module(name, module)
    undo_later(model, functools.partial(delattr, model, name))


def undo_later(model: nn.Module, undo: Callable[[], None]) -> None:
    """Have ``undo`` called in case the ``apply`` that changes ``model`` fails later."""
    pending = model.__dict__.get("_klnorm_undo")
    if pending is not None:
        pending.append((undo,))


def _set(model: nn.Module, owner: object, name: str, value: object) -> None:
    undo = model.__dict__.get("_klnorm_undo")
    if undo is not None:
        undo.append((owner, name, getattr(owner, name)))
    setattr(owner, name, value)


@contextmanager
def _undo_on_error(model: nn.Module, outers: list[nn.Module]) -> Iterator[None]:
    """Take everything back when an error leaves the block: replaced modules, classes, attributes, frozen flags."""
    held = [(module, type(module), dict(module.__dict__)) for module in (*outers, model)]
    trains = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    undo = model.__dict__["_klnorm_undo"] = []
    try:
        yield
    except Exception:
        for step in reversed(undo):
            step[0]() if len(step) == 1 else setattr(*step)
        for module, cls, attributes in held:
            module.__class__ = cls
            module.__dict__.clear()
            module.__dict__.update(attributes)
        for parameter, flag in trains:
            parameter.requires_grad_(flag)
        raise
    finally:
        model.__dict__.pop("_klnorm_undo", None)


def _penalty_layers(model: nn.Module) -> list[PenaltyLayer]:
    return [m for m in model.modules() if isinstance(m, PenaltyLayer)]


def _swap_class(module: nn.Module, subclass_of: Callable[[type], type]) -> None:
    module.__class__ = subclass_of(type(module))


def rebuild(base: type, subclass_of: Callable[[type], type]) -> nn.Module:
    """An empty module of class ``subclass_of(base)``: what a copy or a pickle of one begins with."""
    cls = subclass_of(base)
    return cls.__new__(cls)


def _named_like(base: type, cls: type) -> type:
    # The Trainer, peft and save_pretrained go by the class's name; it must stay the user's.
    cls.__name__, cls.__qualname__, cls.__module__, cls.__doc__ = (
        base.__name__,
        base.__qualname__,
        base.__module__,
        base.__doc__,
    )
    return cls


@functools.cache
def _regularised(base: type) -> type:
    if hasattr(base, "_klnorm_methods"):
        return base  # of a fresh model, made by calling the class of a changed one
    signature = inspect.signature(base.forward)

    class Regularised(base):
        accepts_loss_kwargs = False
        _klnorm_methods = None

        @functools.wraps(base.forward)
        def forward(self, *args, **kwargs):
            if self._klnorm_methods is None:
                return base.forward(self, *args, **kwargs)
            return _forward(self, base.forward, signature.bind_partial(self, *args, **kwargs))

        @functools.wraps(base.save_pretrained)
        def save_pretrained(self, *args, **kwargs):
            if self._klnorm_methods is None:
                return base.save_pretrained(self, *args, **kwargs)
            with _methods_in_config(self.config, self._klnorm_methods):
                return base.save_pretrained(self, *args, **kwargs)

        def __reduce_ex__(self, protocol):
            # The auxiliary loss carries a graph, which neither copy nor pickle can take along.
            return rebuild, (base, _regularised), self.__dict__ | {"_klnorm_auxiliary": None}

    return _named_like(base, Regularised)


@functools.cache
def _saving_methods(base: type) -> type:
    class SavingMethods(base):
        @functools.wraps(base.save_pretrained)
        def save_pretrained(self, save_directory, *args, **kwargs):
            result = base.save_pretrained(self, save_directory, *args, **kwargs)
            inner = unwrap(self)
            with _methods_in_config(inner.config, inner._klnorm_methods):
                inner.config.architectures = [type(inner).__name__]
                inner.config.save_pretrained(save_directory)
            return result

        def __reduce_ex__(self, protocol):
            return rebuild, (base, _saving_methods), self.__dict__

    return _named_like(base, SavingMethods)


@contextmanager
def _methods_in_config(config, methods: tuple[Method, ...]) -> Iterator[None]:
    # Only while saving: a config object may be shared with models that no method was applied to.
    setattr(config, CONFIG_KEY, {"format": FORMAT, "methods": [copy.deepcopy(m.to_dict()) for m in methods]})
    try:
        yield
    finally:
        delattr(config, CONFIG_KEY)


def _wrappers(model: nn.Module, inner: nn.Module) -> list[nn.Module]:
    """``model`` and whatever stands between it and ``inner``, from the outside in."""
    found = [m for m in model.modules() if m is inner or any(child is inner for child in m.modules())]
    return found if inner in found else [model]


def _keep_in_adapter(peft_model: nn.Module, inner: nn.Module) -> None:
    """Make peft train and save the layers that methods added outside ``modules_to_save``."""
    from peft.utils import ModulesToSaveWrapper

    adapter = peft_model.active_adapter
    kept = [n for n, m in inner.named_modules() if isinstance(m, ModulesToSaveWrapper)]
    added = [n for n, m in inner.named_modules() if getattr(m, "added_by_klnorm", False) and m.state_dict()]
    for path in added:
        if any(path == k or path.startswith(f"{k}.") for k in kept):
            continue
        wrapper = ModulesToSaveWrapper(inner.get_submodule(path), adapter)
        wrapper.set_adapter(adapter)
        replace_module(inner, path, wrapper)
        config = peft_model.peft_config[adapter]
        _set(inner, config, "modules_to_save", sorted({*(config.modules_to_save or ()), path}))
        kept.append(path)


def _forward(model: nn.Module, base_forward: Callable, given: inspect.BoundArguments):
    layers = _penalty_layers(model)
    as_tuple = _ask_for_names(model, given)
    mask, labels = given.arguments.get("attention_mask"), given.arguments.get("labels")
    samples = 1
    if labels is not None and model.training:
        samples = max((layer.samples for layer in layers), default=1)
    if samples > 1:
        given.arguments["labels"] = torch.cat([labels] * samples)
    model._klnorm_pending = False  # the graph of the forward before is gone

    def one_pass():
        for layer in layers:
            layer.enter(samples, torch.is_grad_enabled(), functools.partial(real_positions, model.config, mask))
        try:
            outputs = base_forward(*given.args, **given.kwargs)
            penalties = [p for layer in layers for p in layer.penalties]
        finally:
            for layer in layers:
                layer.leave()
        total = torch.stack([p.to(penalties[0].device) for p in penalties]).sum() if penalties else None
        return outputs, total

    outputs, total = one_pass()
    comparing = [layer for layer in layers if isinstance(layer, Comparison) and model.training]
    if comparing:
        outputs, total = twice(comparing, (outputs, total), one_pass, labels is not None, samples)
    outputs = _attach_penalty(model, outputs, total, labels is not None, samples)
    return outputs.to_tuple() if as_tuple and not isinstance(outputs, tuple) else outputs


def _ask_for_names(model: nn.Module, given: inspect.BoundArguments) -> bool:
    """Have the model name its outputs, since in a tuple the loss looks like the logits; whether a tuple was wanted."""
    parameters = given.signature.parameters
    anything = next((name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD), None)
    others = given.arguments.get(anything, {})
    asked = given.arguments.get("return_dict", others.get("return_dict"))
    as_tuple = not (getattr(model.config, "return_dict", True) if asked is None else asked)
    if as_tuple and "return_dict" in parameters:
        given.arguments["return_dict"] = True
    elif as_tuple and anything is not None:
        given.arguments[anything] = {**others, "return_dict": True}
    return as_tuple


def _attach_penalty(model: nn.Module, outputs, total: Tensor | None, has_labels: bool, samples: int):
    is_tuple = isinstance(outputs, tuple)
    loss, logits = loss_and_logits(outputs, has_labels)
    if total is None:
        total = torch.zeros((), device=next(model.parameters()).device)
    elif model.training:
        loss = None if loss is None else loss + total
        if total.requires_grad and not torch.compiler.is_compiling():
            _watch(model, logits, loss)
    if samples > 1:
        logits = logits.unflatten(0, (samples, -1)).mean(0)
    model._klnorm_auxiliary = Penalty.wrap(total)
    if is_tuple:
        rest = outputs[1 + int(has_labels) :]
        return (loss, logits, *rest) if has_labels else (logits, *rest)
    if loss is not None:
        outputs["loss"] = loss
    if samples > 1:
        outputs["logits"] = logits
    return outputs


_LOST = (
    "the penalty of the last training forward reached no loss: a loss was computed from the logits (by a "
    "compute_loss_func, label_smoothing_factor or code of your own) without outputs.loss. Use outputs.loss, or add "
    "klnorm_lib.auxiliary_loss(model) to your own loss"
)


def _watch(model: nn.Module, logits: Tensor | None, loss: Tensor | None) -> None:
    """Raise as soon as a gradient comes back through logits whose penalty neither was asked for nor is in it."""
    if logits is None or not logits.requires_grad:
        return
    model._klnorm_pending = True

    def found(gradient: Tensor) -> None:
        model._klnorm_pending = False

    def check(gradient: Tensor) -> None:
        if model._klnorm_pending:
            model._klnorm_pending = False
            raise RuntimeError(_LOST)

    # Autograd reaches the logits last, when all that was computed from them, outputs.loss included, has its gradient.
    logits.register_hook(check)
    if loss is not None:
        loss.register_hook(found)
