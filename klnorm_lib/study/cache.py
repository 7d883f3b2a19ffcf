"""What many runs of one process need alike is made once: a task's rows, and the same rows as token ids.

Off unless a study turns it on with ``keeping()``, because a notebook may change its files between two runs.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

ENTRIES = 64
_kept: OrderedDict[Hashable, Any] | None = None


@contextmanager
def keeping() -> Iterator[None]:
    """Within this block (or, in a worker, from here on) what was made is kept, the last ``ENTRIES`` things."""
    global _kept
    before = _kept
    _kept = OrderedDict() if before is None else before
    try:
        yield
    finally:
        _kept = before


def once(key: Hashable, make: Callable[[], Any]) -> Any:
    """``make()``, or what it gave the last time for this key; ``KLNORM_MIRROR`` is part of every key."""
    if _kept is None:
        return make()
    key = (os.environ.get("KLNORM_MIRROR"), key)
    if key not in _kept:
        _kept[key] = make()
        while len(_kept) > ENTRIES:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]
