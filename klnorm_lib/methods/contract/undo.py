"""Changes to a model that are taken back when ``apply`` fails."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

_KEY = "_klnorm_undo"  # where a model keeps the Undo of the apply that is changing it


class Undo:
    """A list of steps that take changes back, the latest first."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], Any]] = []
        self._set: set[tuple[int, str]] = set()

    def later(self, step: Callable[[], Any]) -> None:
        """Have ``step`` called if the change fails."""
        self._steps.append(step)

    def set(self, owner: object, name: str, value: object) -> None:
        """Set an attribute, to have its old value again if the change fails."""
        self.later(functools.partial(self._unset, owner, name, getattr(owner, name)))
        self._set.add((id(owner), name))
        setattr(owner, name, value)

    def _unset(self, owner: object, name: str, value: object) -> None:
        setattr(owner, name, value)
        self._set.discard((id(owner), name))

    def has_set(self, owner: object, name: str) -> bool:
        """Whether this attribute was set before, in the same change."""
        return (id(owner), name) in self._set

    def remember(self, modules: Sequence[nn.Module], parameters: Iterable[nn.Parameter]) -> None:
        """Restore the classes and attributes of ``modules`` and the frozen flags of ``parameters`` on failure."""
        for parameter in parameters:
            self.later(functools.partial(parameter.requires_grad_, parameter.requires_grad))
        for module in modules:
            self.later(functools.partial(_restore, module, type(module), dict(module.__dict__)))

    def back_to(self, mark: int = 0) -> None:
        """Call all steps but the first ``mark``, the latest first, and forget them."""
        while len(self._steps) > mark:
            self._steps.pop()()

    def __len__(self) -> int:
        return len(self._steps)


def _restore(module: nn.Module, cls: type, attributes: dict[str, Any]) -> None:
    module.__class__ = cls
    module.__dict__.clear()
    module.__dict__.update(attributes)


@contextmanager
def undo_on_error(model: nn.Module) -> Iterator[Undo]:
    """The ``Undo`` of the running ``apply``, or a new one; an error takes back what the block did."""
    outer = model.__dict__.get(_KEY)
    undo = Undo() if outer is None else outer
    mark = len(undo)
    if outer is None:
        model.__dict__[_KEY] = undo
    try:
        yield undo
    except Exception:
        undo.back_to(mark)
        raise
    finally:
        if outer is None:
            model.__dict__.pop(_KEY, None)


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` at dotted ``path`` of ``model``, to be taken out again if ``apply`` fails later."""
    parent_path, _, name = path.rpartition(".")
    with undo_on_error(model) as undo:
        undo.set(model.get_submodule(parent_path), name, module)


def add_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Attach ``module`` to ``model`` as ``name``, to be taken off again if ``apply`` fails later."""
    if hasattr(model, name):
        raise ValueError(f"{type(model).__name__} has something called {name!r} already")
    model.add_module(name, module)
    undo_later(model, functools.partial(delattr, model, name))


def undo_later(model: nn.Module, step: Callable[[], Any]) -> None:
    """Have ``step`` called if the ``apply`` that changes ``model`` fails later."""
    with undo_on_error(model) as undo:
        undo.later(step)
