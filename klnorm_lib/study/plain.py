"""Plain values: dicts and lists made read-only and hashable, and made plain again for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class FrozenArgs(Mapping):
    """A read-only, hashable mapping of a method's hyperparameters."""

    def __init__(self, values: Mapping[str, Any] = ()):
        self._values = {key: _freeze(value) for key, value in sorted(dict(values).items())}

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        return FrozenArgs(value)
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    return value


def to_plain(value: Any) -> Any:
    """Mappings as dicts and sequences as lists, at any depth, ready for JSON."""
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def without_later(values: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` but for the fields that came later and hold the value that stands for how it was before them.

    ``later``: field -> that value. So a record made before there was such a field has the same hash as one made now.
    """
    return {name: value for name, value in values.items() if name not in later or value != later[name]}
