"""Which tensors of an encoder are upstream of each of its dropout sites: seen in a forward pass, for any architecture.

The pass shows in which order parameters are read and masks are drawn. Within a layer a tensor belongs to

``*attention_probs``      if its attention module reads it before the attention weights are dropped: query, key, value
another site              if it is the last linear map before a draw of that site; maps of the same input (a gate and
                          what it gates) count together, and every map that runs into the site's draws does
a normalisation           to the draw that follows in its layer, if the layer begins with a normalisation; in layers
                          that normalise last (BERT), to the draw before it, if no map lies between
``embeddings``            above the layers: all that is read before its draws, feature extractors of waveforms left out

All other tensors belong to no site: a map that another map follows without a draw, poolers, last normalisations, and
tensors that not every layer has (T5's relative positions in its first layer), so that layers compare. Layers that share
their weights (ALBERT) have one set of sites, which their tensors belong to once; an embedding matrix that encoder and
decoder share belongs to the sites of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from klnorm_lib.probes.operations import Seen
from klnorm_lib.probes.rates import Recorder, recorded
from klnorm_lib.sites import Site, dropout_sites, encoder_of
from klnorm_lib.sites.names import tensor_sites
from klnorm_lib.sites.structure import split
from klnorm_lib.sites.walk import join, places

_FRONT_ENDS = ("feature_extractor.",)  # of waveforms: pretrained encoders keep them frozen, and drop nothing there


_Layer = tuple[str, tuple[str, ...]] | None  # a stack and the index in it


@dataclass(frozen=True)
class _Read:
    """A parameter as an operation reads it, with the activation that the operation reads beside it."""

    name: str
    activation: Tensor | None


@dataclass(frozen=True)
class _Drawn:
    """A mask that was drawn for ``site`` while ``running`` were the running modules."""

    site: str
    running: tuple[nn.Module, ...]


def site_tensors(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Site -> names, in the encoder, of the parameters that its score is of.

    Those of ``klnorm_lib.sites.names`` where that module knows the encoder, else :func:`upstream_tensors`. Raises
    what the latter raises.
    """
    sites = dropout_sites(model)
    try:
        belongs = tensor_sites(_names(encoder_of(model)).values())
    except ValueError:  # names that it does not know
        return upstream_tensors(model)
    found = {site: tuple(name for name, of in belongs.items() if of == site) for site in sites}
    return found if all(found.values()) else upstream_tensors(model)


def upstream_tensors(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Site -> names, in the encoder, of the parameters upstream of it, from the embeddings to the last layer.

    One small forward pass of the encoder, which is left as it was. Raises what ``effective_rates`` raises, and
    ``ValueError`` for a site that no parameter runs into.
    """
    encoder = encoder_of(model)
    with _rates_apart(model):
        tracer = recorded(model, _Tracer)
    found = _Upstream(encoder, tracer.events).sites()
    empty = [site for site in dropout_sites(model) if not found[site]]
    if empty:
        raise ValueError(
            f"no parameter of {type(encoder).__name__} is upstream of {', '.join(empty[:6])}; give the rates yourself: "
            "GuidedDropout(rates={...})"
        )
    return {site: found[site] for site in dropout_sites(model)}


@contextmanager
def _rates_apart(model: nn.Module) -> Iterator[None]:
    """A rate of its own for every site, by which those whose rates one module reads are told apart."""
    sites = dropout_sites(model).values()
    before = [(rate, rate.get()) for site in sites for rate in site.rates]
    try:
        for k, site in enumerate(sites):
            site.set(0.1 + 0.2 * k / len(sites))
        yield
    finally:
        for rate, p in before:
            rate.set(p)


class _Tracer(Recorder):
    """Keeps the order in which parameters are read and masks are drawn."""

    def __init__(self, encoder: nn.Module, sites: dict[str, Site]) -> None:
        super().__init__(encoder, sites)
        self.events: list[_Read | _Drawn] = []
        self._names = _names(encoder)

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        given = [x for x in (*args, *(kwargs or {}).values()) if isinstance(x, Tensor)]
        given += [x for several in args if isinstance(several, (list, tuple)) for x in several if isinstance(x, Tensor)]
        named = [self._names[id(x)] for x in given if id(x) in self._names]
        activation = next((x for x in given if id(x) not in self._names and x.is_floating_point()), None)
        before = len(self.events)
        result = super().__torch_function__(func, types, args, kwargs)
        # A parameter's shape and device are asked for anywhere; only what makes a tensor of it computes with it.
        if named and isinstance(result[0] if isinstance(result, tuple) and result else result, Tensor):
            self.events[before:before] = [_Read(name, activation) for name in named]
        return result

    def _record(self, p: float, seen: Seen) -> None:
        before = len(self.readings)
        super()._record(p, seen)
        self.events += [_Drawn(r.site, tuple(self._running)) for r in self.readings[before:]]


class _Upstream:
    """From the events of one pass to the tensors of each site."""

    def __init__(self, encoder: nn.Module, events: list[_Read | _Drawn]) -> None:
        self.events = events
        self.modules = {place.role: place.module for place in places(encoder)}
        self.role = {module: role for role, module in self.modules.items()}
        self.shape = {n: p.shape for m, r in self.role.items() for n, p in _own(m, r)}
        # Lists of other modules (convolutions) are no layers.
        self.stacks = {split(self.modules, self.place(e))[0] for e in events if isinstance(e, _Drawn)} - {None}
        first: dict[_Layer, bool] = {}
        for event in events:
            if isinstance(event, _Read):
                first.setdefault(self.layer(event.name), not self.is_map(event.name))
        # ModernBERT's first layer leaves its first normalisation out: one that has it tells of its stack.
        self.pre_norm = {layer[0] for layer, is_norm in first.items() if layer is not None and is_norm}

    def layer(self, path: str) -> _Layer:
        """The layer around a path; None above the layers."""
        stack, index, _ = split(self.modules, path)
        return (stack, index) if stack in self.stacks else None

    def is_map(self, name: str) -> bool:
        """Whether the module that holds the parameter has a matrix; its bias goes where the matrix goes."""
        holder = name.rpartition(".")[0]
        return any(len(shape) > 1 for other, shape in self.shape.items() if other.rpartition(".")[0] == holder)

    def sites(self) -> dict[str, tuple[str, ...]]:
        """Site -> its tensors, for the sites that were drawn."""
        found: dict[str, dict[str, None]] = {e.site: {} for e in self.events if isinstance(e, _Drawn)}
        for at, event in enumerate(self.events):
            if isinstance(event, _Read) and (site := self.site_of(at, event)) is not None:
                found[site][event.name] = None
        kinds: dict[str, list[set[str]]] = {}
        for site, names in found.items():
            kinds.setdefault(_without_numbers(site), []).append({self.inside(name) for name in names})
        everywhere = {kind: set.intersection(*layers) for kind, layers in kinds.items()}
        return {
            site: tuple(n for n in names if self.inside(n) in everywhere[_without_numbers(site)])
            for site, names in found.items()
        }

    def inside(self, name: str) -> str:
        """The part of a parameter's name that follows its layer; all of it above the layers."""
        return name if self.layer(name) is None else split(self.modules, name)[2]

    def site_of(self, at: int, read: _Read) -> str | None:
        layer = self.layer(read.name)
        following = next((k for k in range(at + 1, len(self.events)) if isinstance(self.events[k], _Drawn)), None)
        drawn = None if following is None else self.events[following]
        if drawn is not None and self.layer(self.place(drawn)) != layer:
            drawn = None
        if layer is None:
            return None if drawn is None or read.name.startswith(_FRONT_ENDS) else drawn.site
        if not self.is_map(read.name) and layer[0] not in self.pre_norm:
            return self.closes(at, layer)
        if drawn is None:
            return None
        if not self.is_map(read.name) or self.inside_attention(read.name, drawn):
            return drawn.site
        between = [e for e in self.events[at + 1 : following] if self.is_map(e.name)]
        return None if any(not self.beside(read, other) for other in between) else drawn.site

    def closes(self, at: int, layer: _Layer) -> str | None:
        """The site of the draw that a normalisation after the residual sum closes."""
        for event in reversed(self.events[:at]):
            if isinstance(event, _Drawn):
                return event.site if self.layer(self.place(event)) == layer else None
            if self.is_map(event.name):
                return None
        return None

    def place(self, drawn: _Drawn) -> str:
        """A path inside the innermost module that runs while ``drawn`` is drawn."""
        return join(next(self.role[m] for m in reversed(drawn.running) if m in self.role), "_")

    def inside_attention(self, name: str, drawn: _Drawn) -> bool:
        if not drawn.site.endswith("attention_probs"):
            return False
        holder = self.modules[name.rpartition(".")[0]]
        return any(holder is inner for module in _around(drawn.running) for inner in module.modules())

    def beside(self, read: _Read, other: _Read) -> bool:
        """Whether both belong to one module, or to maps of one activation."""
        if read.name.rpartition(".")[0] == other.name.rpartition(".")[0]:
            return True
        one, two = read.activation, other.activation
        return one is not None and two is not None and one.data_ptr() == two.data_ptr()


def _without_numbers(site: str) -> str:
    return ".".join(part for part in site.split(".") if not part.isdigit())


def _around(running: tuple[nn.Module, ...]) -> list[nn.Module]:
    """The attention module: the innermost one that runs, or that around a dropout module."""
    inner = running[-1]
    return [inner] if next(inner.parameters(), None) is not None or len(running) < 2 else [running[-2]]


def _names(encoder: nn.Module) -> dict[int, str]:
    """Identity of a parameter -> its name in the encoder, peft's wrappers left out."""
    found: dict[int, str] = {}
    for place in places(encoder):
        for name, parameter in _own(place.module, place.role):
            found.setdefault(id(parameter), name)
    return found


def _own(module: nn.Module, role: str) -> list[tuple[str, nn.Parameter]]:
    return [(join(role, name), parameter) for name, parameter in module.named_parameters(recurse=False)]
