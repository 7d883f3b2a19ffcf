"""Whether gradients are taken to measure a model, not to train it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_measuring: ContextVar[bool] = ContextVar("measuring", default=False)


@contextmanager
def without_training() -> Iterator[None]:
    """Losses with a gradient in evaluation mode are wanted in this block: nothing is trained with them."""
    token = _measuring.set(True)
    try:
        yield
    finally:
        _measuring.reset(token)


def measuring() -> bool:
    """Whether a block of :func:`without_training` is open."""
    return _measuring.get()
