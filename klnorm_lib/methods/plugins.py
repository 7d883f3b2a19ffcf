"""Classes of methods by name: the library's own, then those that other installed packages register.

A package registers a method in its ``pyproject.toml``, under the method's own name::

    [project.entry-points."klnorm_lib.methods"]
    my_method = "my_package.my_module:MyMethod"
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib import metadata

from klnorm_lib.methods.contract.method import Method
from klnorm_lib.methods.together import PLUS

GROUP = "klnorm_lib.methods"
PLAIN = "plain"


class Registry(Mapping[str, type[Method]]):
    """Name -> class, in the order given; the entry points of ``GROUP`` follow, loaded once, on first use.

    ``broken``: name -> reason, of the entry points that could not be imported; each is warned of once. An entry point
    whose object is not a method, or whose name is taken or not the method's, raises ``ValueError`` on first use.
    """

    def __init__(self, own: Sequence[type[Method]]) -> None:
        self.own: dict[str, type[Method]] = {}
        self.broken: dict[str, str] = {}
        for cls in own:
            _add(self.own, cls.name, cls, f"{cls.__module__}:{cls.__qualname__}")

    @cached_property
    def _methods(self) -> dict[str, type[Method]]:
        methods = dict(self.own)
        for point in metadata.entry_points(group=GROUP):
            entry = f"the entry point {point.name} = {point.value} of the group {GROUP}"
            try:
                cls = point.load()
            except Exception as error:  # whatever the other package's import raises
                self.broken[point.name] = f"{entry} cannot be imported ({type(error).__name__}: {error})"
                warnings.warn(f"{self.broken[point.name]}; the other methods are there", UserWarning, stacklevel=2)
                continue
            _add(methods, point.name, cls, entry)
        return methods

    def __getitem__(self, name: str) -> type[Method]:
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)


def _add(methods: dict[str, type[Method]], name: str, cls: object, entry: str) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise ValueError(f"{entry} is {cls!r}, which is no subclass of klnorm_lib.Method")
    own = getattr(cls, "name", None)
    if own != name:
        raise ValueError(f"{entry} gives a method that calls itself {own!r}; both names must be the same")
    if name in methods or name == PLAIN or PLUS in name:
        raise ValueError(f"{entry}: the name {name!r} is taken or cannot be used; choose another one for the method")
    methods[name] = cls
