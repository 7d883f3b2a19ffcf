"""The dropout sites of an encoder, by role and name, never by index.

``embeddings``                   what enters the first layer
``layer.{i}.attention_probs``    attention weights after the softmax
``layer.{i}.attention_output``   the attention block, before it joins the residual stream
``layer.{i}.ffn_hidden``         inside the feed-forward block (audio encoders, ModernBERT, T5)
``layer.{i}.ffn_output``         the feed-forward block, before it joins the residual stream

A BERT with L layers has 1 + 3L of them. An architecture has those that its code has: DistilBERT has no
``attention_output``. Dropout of the classifier and the pooler, layer-drop, stochastic depth, SpecAugment, peft's own
dropout and that of a vision tower beside a language model are no sites. Layers that share their weights (ALBERT) share
one set of sites. Encoders that name their parts otherwise are read by structure, see ``klnorm_lib.sites.structure``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from torch import nn

from klnorm_lib.sites import structure
from klnorm_lib.sites.added import added_dropouts
from klnorm_lib.sites.walk import Place, encoder_of, join, places

KINDS = (
    "attention_probs", "attention_output", "cross_attention_probs", "cross_attention_output", "ffn_hidden", "ffn_output"
)  # fmt: skip

_LAYER = re.compile(r"(?:encoder|transformer)\.layers?\.(\d+)\.(.+)")
_IN_LAYER = (
    (re.compile(r"attention\.(?:self|attn)\.dropout"), "attention_probs", True),
    # DeBERTa drops relative positions on their way into the same attention scores.
    (re.compile(r"attention\.(?:self|attn)\.pos_dropout"), "attention_probs", False),
    (re.compile(r"attention\.output\.dropout|dropout"), "attention_output", True),
    (re.compile(r"feed_forward\.intermediate_dropout"), "ffn_hidden", True),
    (re.compile(r"(?:output|ffn)\.dropout|feed_forward\.output_dropout"), "ffn_output", True),
)
_ABOVE_LAYERS = (
    # Audio encoders drop once more after their positional convolution; that is what enters the first layer.
    (re.compile(r"embeddings\.dropout|encoder\.dropout"), "embeddings", True),
    (re.compile(r"feature_projection\.dropout|feature_dropout"), "embeddings", False),
    # DeBERTa's convolution joins the residual stream together with the output of its first layer.
    (re.compile(r"encoder\.conv\.dropout"), "layer.0.ffn_output", False),
)
LEFT_ALONE = re.compile(r"pooler\..*")


@dataclass(frozen=True)
class Rate:
    """One number that the model's code reads as a dropout rate: ``attribute`` of ``module``, found at ``path``."""

    module: nn.Module = field(repr=False)
    attribute: str
    path: str

    def get(self) -> float:
        """The rate that is written down (what runs is measured by ``effective_rates``)."""
        return float(getattr(self.module, self.attribute))

    def set(self, p: float) -> None:
        """Write ``p`` down."""
        setattr(self.module, self.attribute, p)


@dataclass(frozen=True)
class Site:
    """A place of dropout: its name, the rate of its main operation, and rates that are set together with it.

    ``runs_in`` are the modules from whose forward the main operation is called.
    """

    name: str
    main: Rate
    companions: tuple[Rate, ...] = ()
    runs_in: tuple[nn.Module, ...] = field(default=(), repr=False)

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The main rate, then the companions."""
        return (self.main, *self.companions)

    def get(self) -> float:
        """The main rate as written down."""
        return self.main.get()

    def set(self, p: float) -> None:
        """Write ``p`` into the main rate and its companions."""
        for rate in self.rates:
            rate.set(p)


@dataclass(frozen=True)
class _Found:
    """A rate in the model, its role in the encoder, and the module around it."""

    rate: Rate
    role: str
    around: nn.Module


def dropout_sites(model: nn.Module) -> dict[str, Site]:
    """Name -> site, from the embeddings to the last layer; the same names whatever head or wrapper the model has.

    Sites that a method added are among them. Raises ``ValueError`` if the encoder has no recognised site, or a dropout
    module whose role is unknown.
    """
    return known_sites(model, needed=True)


def known_sites(model: nn.Module, needed: bool = False) -> dict[str, Site]:
    """As :func:`dropout_sites`, but empty for an encoder without any dropout, unless one is ``needed``."""
    encoder = encoder_of(model)
    sites = {a.site: Site(a.site, Rate(a, "p", path), (), (a,)) for path, a in added_dropouts(encoder)}
    towers = tuple(f"{tower}." for tower in _other_inputs(encoder))
    every = [f for f in _rates_in(encoder) if not LEFT_ALONE.fullmatch(f.role) and not f.role.startswith(towers)]
    mains: dict[str, _Found] = {}
    companions: dict[str, list[Rate]] = {}
    unknown: list[str] = []
    for found in every:
        name, is_main = _site_of(found)
        if name is None:
            # A number alone may be a copy that nothing reads; effective_rates shows when something does.
            if is_dropout(found.rate.module):
                unknown.append(found.role)
        elif not is_main:
            companions.setdefault(name, []).append(found.rate)
        elif name in mains:
            unknown.append(f"{found.role} (the role of {mains[name].role})")
        else:
            mains[name] = found
    unknown += [r.path for name, rates in companions.items() if name not in mains for r in rates]
    modules = {place.role: place.module for place in places(encoder)}
    # The names above are those of records; where they leave out a rate that code reads, structure says more.
    idle = [f.role for f in mains.values() if not structure.is_read(modules, f.role)]
    by_structure = _by_structure(modules, every)
    if unknown or not mains or idle or (len(by_structure[0]) > len(mains) and not by_structure[2]):
        mains, companions, unknown = by_structure
    if unknown or not (mains or sites) and (needed or any(is_dropout(f.rate.module) for f in every)):
        raise ValueError(_unknown(encoder, every, mains, unknown))
    for name, found in mains.items():
        # Functional attention calls dropout from the attention module, not from the nn.Dropout that has its rate.
        around = (found.around,) if name.endswith("attention_probs") else ()
        sites[name] = Site(name, found.rate, tuple(companions.get(name, ())), (found.rate.module, *around))
    return {name: sites[name] for name in sorted(sites, key=_order)}


def _by_structure(
    modules: structure.Modules, every: list[_Found]
) -> tuple[dict[str, _Found], dict[str, list[Rate]], list[str]]:
    """Main rates, companions and unknown roles, by where the rates stand: see ``klnorm_lib.sites.structure``."""
    held = [f for f in every if is_dropout(f.rate.module)]
    found = structure.roles(modules, [f.role for f in every])
    unknown = [f.role for f in held if f.role in found and found[f.role] is None]
    unknown += [f.role for f in held if f.role not in found and structure.is_foreign(modules, f.role)]
    placed = {path: role for path, role in found.items() if role is not None}
    prefixed = structure.prefixed(placed)
    mains: dict[str, _Found] = {}
    companions: dict[str, list[Rate]] = {}
    for f in every:
        role = placed.get(f.role)
        if role is None:
            continue
        name = role.kind if role.layer is None else f"layer.{role.layer}.{role.kind}"
        if prefixed and role.stack:
            name = f"{role.stack}.{name}"
        if name in mains:
            companions.setdefault(name, []).append(f.rate)
        else:
            mains[name] = f
    return mains, companions, unknown


def _other_inputs(encoder: nn.Module) -> list[str]:
    """Parts of a language model that read images or sound (Gemma 3's vision tower): text does not run them."""
    if encoder.main_input_name != "input_ids":
        return []
    return [place.role for place in places(encoder) if place.role and not _reads_text(place.module)]


def _reads_text(module: nn.Module) -> bool:
    modalities = getattr(module, "input_modalities", "text")
    named = "text" in ([modalities] if isinstance(modalities, str) else modalities)
    return named and getattr(module, "main_input_name", "input_ids") == "input_ids"


def _rates_in(encoder: nn.Module) -> list[_Found]:
    found, parents = [], {}
    for place in places(encoder):
        parents[place.role] = place.module
        if is_dropout(place.module):
            attribute = "p" if hasattr(place.module, "p") else "drop_prob"
            around = parents[place.role.rpartition(".")[0]]
            found.append(_Found(Rate(place.module, attribute, place.path), place.role, around))
        else:
            found += [_float_rate(place, name) for name in _float_attributes(place.module)]
    return found


def _float_rate(place: Place, name: str) -> _Found:
    return _Found(Rate(place.module, name, join(place.path, name)), join(place.role, name), place.module)


def is_dropout(module: nn.Module) -> bool:
    """Whether a module is a dropout, by its class or, of another class, by the class's name and its rate."""
    named = type(module).__name__.endswith("Dropout") and not module._modules
    rate = getattr(module, "p", getattr(module, "drop_prob", None))
    return isinstance(module, nn.modules.dropout._DropoutNd) or (named and isinstance(rate, float))


def _float_attributes(module: nn.Module) -> list[str]:
    attributes = vars(module).items()
    return [k for k, v in attributes if "dropout" in k and isinstance(v, (int, float)) and not isinstance(v, bool)]


def _site_of(found: _Found) -> tuple[str | None, bool]:
    """The site's name (None: unknown) and whether this is its main operation."""
    in_layer = _LAYER.fullmatch(found.role)
    if not in_layer:
        known = ((name, main) for pattern, name, main in _ABOVE_LAYERS if pattern.fullmatch(found.role))
        return next(known, (None, False))
    layer, role = in_layer.groups()
    if role == "attention.dropout":
        # DistilBERT's and the audio encoders' attention drops its weights itself; MPNet's contains a self-attention
        # that does so, and drops the output of the block.
        inner = found.around._modules.keys() & {"self", "attn"}
        return f"layer.{layer}.{'attention_output' if inner else 'attention_probs'}", True
    known = ((f"layer.{layer}.{kind}", main) for pattern, kind, main in _IN_LAYER if pattern.fullmatch(role))
    return next(known, (None, False))


def _order(name: str) -> tuple[bool, str, int, int]:
    stack, _, rest = name.rpartition("layer.") if "layer." in name else name.rpartition("embeddings")
    if not rest:
        return stack.startswith("decoder"), stack, -1, 0
    layer, kind = rest.split(".")
    return stack.startswith("decoder"), stack, int(layer), KINDS.index(kind)


def _unknown(encoder: nn.Module, every: list[_Found], mains: dict[str, _Found], unknown: list[str]) -> str:
    listed = unknown or [f.role for f in every]
    places_found = ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "")
    head = f"the roles of these dropouts of {type(encoder).__name__} are not known: {places_found or 'none was found'}"
    if not mains:
        head = f"no known dropout site in {type(encoder).__name__}; {head}"
    return (
        f"{head}. Known are the encoders of BERT, RoBERTa, DistilBERT, ELECTRA, DeBERTa-v2, MPNet, Wav2Vec2, HuBERT, "
        "WavLM, UniSpeech, Data2VecAudio and SEW, and those whose dropouts stand in lists of layers with an attention "
        "and a feed-forward part. For another one set the rates in its config when you load it, and leave Dropout out "
        "of apply(); where there is none, Dropout(add_missing=True) puts some"
    )
