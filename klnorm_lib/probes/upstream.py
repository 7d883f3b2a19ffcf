"""Which tensors of an encoder are upstream of each of its dropout sites: seen in a forward pass, for any architecture.

The pass shows in which order parameters are read and masks are drawn. Within a layer a tensor belongs to

* ``attention_probs`` if its attention module reads it before the attention weights are dropped: query, key, value;
* another site if it is the last linear map before a draw of that site; maps of the same input (a gate and what it
  gates) count together, and every map that runs into the site's draws does;
* if it is of a normalisation, to the draw that follows in its layer where the layer begins with a normalisation, and to
  the draw before it, if no map lies between, in layers that normalise last (BERT);
* ``embeddings`` if it stands above the layers: all that is read before its draws, feature extractors of waveforms left
  out.

All other tensors belong to no site: a map that another map follows without a draw, poolers, last normalisations, and
tensors that not every layer has (T5's relative positions in its first layer), so that layers compare. Layers that share
their weights (ALBERT) have one set of sites, which their tensors belong to once; an embedding matrix that encoder and
decoder share belongs to the sites of both.
"""

from __future__ import annotations

from torch import nn

from klnorm_lib.probes.reading_order import Drawn, Layer, Read, ReadingOrder, parameter_names
from klnorm_lib.sites import dropout_sites, encoder_of
from klnorm_lib.sites.names import tensor_sites

_FRONT_ENDS = ("feature_extractor.",)  # of waveforms: pretrained encoders keep them frozen, and drop nothing there


def site_tensors(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Site -> names, in the encoder, of the parameters that its score is of.

    Those of ``klnorm_lib.sites.names`` where that module knows the encoder, else :func:`upstream_tensors`. Raises
    what the latter raises.
    """
    sites = dropout_sites(model)
    try:
        belongs = tensor_sites(name for name, _ in parameter_names(encoder_of(model)))
    except ValueError:  # names that it does not know
        return upstream_tensors(model)
    found = {site: tuple(name for name, of in belongs.items() if of == site) for site in sites}
    return found if all(found.values()) else upstream_tensors(model)


def upstream_tensors(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Site -> names, in the encoder, of the parameters upstream of it, from the embeddings to the last layer.

    One small forward pass of the encoder, which is left as it was. Raises what ``effective_rates`` raises, and
    ``ValueError`` for a site that no parameter runs into.
    """
    sites = dropout_sites(model)
    found = _Upstream(model).tensors()
    empty = [site for site in sites if not found.get(site)]
    if empty:
        raise ValueError(
            f"no parameter of {type(encoder_of(model)).__name__} is upstream of {', '.join(empty[:6])}; give the rates "
            "yourself: GuidedDropout(rates={...})"
        )
    return {site: found[site] for site in sites}


class _Upstream(ReadingOrder):
    """From the events of one pass to the tensors of each site."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        first: dict[Layer | None, bool] = {}
        for event in self.events:
            if isinstance(event, Read):
                first.setdefault(self.layer(event.name), not self.is_map(event.name))
        # ModernBERT's first layer leaves its first normalisation out: one that has it tells of its stack.
        self.pre_norm = {layer[0] for layer, is_norm in first.items() if layer is not None and is_norm}

    def tensors(self) -> dict[str, tuple[str, ...]]:
        """Site -> its tensors, for the sites that were drawn."""
        found: dict[str, dict[str, None]] = {e.site: {} for e in self.events if isinstance(e, Drawn)}
        for at, event in enumerate(self.events):
            if isinstance(event, Read) and (site := self.site_of(at, event)) is not None:
                found[site][event.name] = None
        kinds: dict[str, list[set[str]]] = {}
        for site, names in found.items():
            kinds.setdefault(_without_numbers(site), []).append({self.inside(name) for name in names})
        everywhere = {kind: set.intersection(*layers) for kind, layers in kinds.items()}
        compared: dict[str, tuple[str, ...]] = {}
        for site, names in found.items():
            shared = tuple(n for n in names if self.inside(n) in everywhere[_without_numbers(site)])
            compared[site] = shared or tuple(names)  # layers of two kinds (Qwen3-Next) have no tensor in common
        return compared

    def site_of(self, at: int, read: Read) -> str | None:
        """The site that a parameter belongs to as it is read at ``events[at]``."""
        layer = self.layer(read.name)
        following = next((k for k in range(at + 1, len(self.events)) if isinstance(self.events[k], Drawn)), None)
        drawn = None if following is None else self.events[following]
        if drawn is not None and self.layer_of(drawn) != layer:
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
        return None if any(not _beside(read, other) for other in between) else drawn.site

    def closes(self, at: int, layer: Layer) -> str | None:
        """The site of the draw that a normalisation after the residual sum closes."""
        for event in reversed(self.events[:at]):
            if isinstance(event, Drawn):
                return event.site if self.layer_of(event) == layer else None
            if self.is_map(event.name):
                return None
        return None

    def inside_attention(self, name: str, drawn: Drawn) -> bool:
        """Whether the module that draws attention weights contains the parameter."""
        if not drawn.site.endswith("attention_probs"):
            return False
        holder = self.modules[name.rpartition(".")[0]]
        return any(holder is inner for inner in _attention(drawn.running).modules())


def _beside(read: Read, other: Read) -> bool:
    """Whether both belong to one module, or to maps of one activation."""
    if read.name.rpartition(".")[0] == other.name.rpartition(".")[0]:
        return True
    one, two = read.activation, other.activation
    return one is not None and two is not None and one.data_ptr() == two.data_ptr()


def _attention(running: tuple[nn.Module, ...]) -> nn.Module:
    """The attention module: the innermost one that runs, or that around a dropout module."""
    inner = running[-1]
    return inner if next(inner.parameters(), None) is not None or len(running) < 2 else running[-2]


def _without_numbers(site: str) -> str:
    return ".".join(part for part in site.split(".") if not part.isdigit())
