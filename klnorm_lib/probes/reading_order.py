"""In which order an encoder reads its parameters and draws its masks, seen in one small training forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from klnorm_lib.probes.operations import Seen
from klnorm_lib.probes.rates import Recorder, recorded
from klnorm_lib.sites import Site, encoder_of
from klnorm_lib.sites.dropouts import known_sites
from klnorm_lib.sites.structure import has_attention, split
from klnorm_lib.sites.walk import Place, join, places

Layer = tuple[str, tuple[str, ...]]  # a stack and the index in it


@dataclass(frozen=True)
class Read:
    """A parameter as an operation reads it, with the activation that the operation reads beside it."""

    name: str
    activation: Tensor | None


@dataclass(frozen=True)
class Drawn:
    """A mask that was drawn for ``site`` while ``running`` were the running modules."""

    site: str
    running: tuple[nn.Module, ...]


class ReadingOrder:
    """The ``events`` of one pass, and where in the encoder they are.

    ``modules``: role -> module, without peft's wrappers. ``stacks``: lists of layers that draw masks or have
    attention modules. Raises what ``effective_rates`` raises, but for an encoder without any dropout.
    """

    def __init__(self, model: nn.Module) -> None:
        encoder = encoder_of(model)
        with _rates_apart(model):
            self.events = recorded(model, _Tracer).events
        everywhere = list(_with_replaced(encoder))
        self.modules = {place.role: place.module for place in reversed(everywhere)}
        self._roles = {place.module: place.role for place in everywhere}
        self._shapes: dict[str, list[int]] = {}
        for name, parameter in parameter_names(encoder):
            self._shapes.setdefault(name.rpartition(".")[0], []).append(parameter.dim())
        # Lists of other modules (convolutions) are no layers.
        inside = [self.place(e) if isinstance(e, Drawn) else e.name for e in self.events]
        drawn = {path for path, e in zip(inside, self.events, strict=True) if isinstance(e, Drawn)}
        apart = {path: split(self.modules, path) for path in inside}
        self.stacks = {s for path, (s, _, rest) in apart.items() if s and (path in drawn or has_attention(rest))}

    def layer(self, path: str) -> Layer | None:
        """The layer around a path; None above the layers."""
        stack, index, _ = split(self.modules, path)
        return (stack, index) if stack in self.stacks else None

    def layer_of(self, event: Read | Drawn) -> Layer | None:
        """The layer that an event is in; what enters the first layer is above it."""
        if isinstance(event, Read):
            return self.layer(event.name)
        return None if event.site.endswith("embeddings") else self.layer(self.place(event))

    def inside(self, name: str) -> str:
        """The part of a parameter's name that follows its layer; all of it above the layers."""
        return name if self.layer(name) is None else split(self.modules, name)[2]

    def is_map(self, name: str) -> bool:
        """Whether the module that holds the parameter has a matrix; its bias goes where the matrix goes."""
        return max(self._shapes[name.rpartition(".")[0]]) > 1

    def place(self, drawn: Drawn) -> str:
        """A path inside the innermost module that runs while ``drawn`` is drawn."""
        return join(next(self._roles[m] for m in reversed(drawn.running) if m in self._roles), "_")


class _Tracer(Recorder):
    """Keeps the order of what it sees."""

    def __init__(self, encoder: nn.Module, sites: dict[str, Site]) -> None:
        super().__init__(encoder, sites)
        self.events: list[Read | Drawn] = []
        self._names: dict[int, str] = {}
        for name, parameter in parameter_names(encoder):
            self._names.setdefault(id(parameter), name)

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        given = [x for x in (*args, *(kwargs or {}).values()) if isinstance(x, Tensor)]
        given += [x for several in args if isinstance(several, (list, tuple)) for x in several if isinstance(x, Tensor)]
        named = [self._names[id(x)] for x in given if id(x) in self._names]
        activation = next((x for x in given if id(x) not in self._names and x.is_floating_point()), None)
        before = len(self.events)
        result = super().__torch_function__(func, types, args, kwargs)
        # A parameter's shape and device are asked for anywhere; only what makes a tensor of it computes with it.
        if named and isinstance(result[0] if isinstance(result, tuple) and result else result, Tensor):
            self.events[before:before] = [Read(name, activation) for name in named]
        return result

    def _record(self, p: float, seen: Seen) -> None:
        before = len(self.readings)
        super()._record(p, seen)
        self.events += [Drawn(r.site, tuple(self._running)) for r in self.readings[before:]]


@contextmanager
def _rates_apart(model: nn.Module) -> Iterator[None]:
    """A rate of its own for every site, by which those whose rates one module reads are told apart."""
    sites = known_sites(model).values()
    before = [(rate, rate.get()) for site in sites for rate in site.rates]
    try:
        for k, site in enumerate(sites):
            site.set(0.1 + 0.2 * k / len(sites))
        yield
    finally:
        for rate, p in before:
            rate.set(p)


def parameter_names(encoder: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name in the encoder, peft's wrappers left out, and parameter."""
    for place in _with_replaced(encoder):
        for name, parameter in place.module.named_parameters(recurse=False):
            yield join(place.role, name), parameter


def _with_replaced(encoder: nn.Module) -> Iterator[Place]:
    """The encoder's modules, and those that a method put in the place of one (Mixout's linear layers)."""
    for place in places(encoder):
        yield place
        for name, child in place.module._modules.items():
            if getattr(type(child), "added_by_klnorm", False):
                for inner, module in child.named_modules(prefix=name):
                    yield Place(join(place.path, inner), join(place.role, inner), module)
