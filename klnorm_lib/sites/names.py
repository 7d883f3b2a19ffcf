"""Which dropout site is downstream of a parameter: from the parameter's name to the site's, for the supported encoders.

A tensor belongs to the first dropout that what it computes runs into, inside its own block:

``embeddings``                   embedding matrices and their normalisation (audio: projection, positions, norm)
``layer.{i}.attention_probs``    query, key and value projections
``layer.{i}.attention_output``   the attention's output projection and the normalisation named after it
``layer.{i}.ffn_hidden``         the first linear map of the feed-forward block (audio encoders only)
``layer.{i}.ffn_output``         the second linear map and the normalisation named after it

Some tensors belong to none: the first feed-forward map of text encoders, which no dropout follows directly (the
published rule leaves it out as well), the output projection of DistilBERT's attention, whose result is not dropped,
relative positions that all layers share, poolers, and heads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NOWHERE = None

_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.|base_model\.model\.)+")
_ENCODERS = (
    "bert", "roberta", "distilbert", "electra", "deberta", "mpnet", "wav2vec2", "hubert", "wavlm", "sew",
    "data2vec_audio", "unispeech", "unispeech_sat",
)  # fmt: skip
_PREFIX = re.compile(rf"^(?:{'|'.join(_ENCODERS)})\.(?=.)")
# Heads by their own names, as the classes of transformers have them.
_HEAD = re.compile(
    r"(?:cls|lm_head|predictions|vocab_transform|vocab_layer_norm|vocab_projector|generator_predictions|"
    r"generator_lm_head|discriminator_predictions|classifier|pre_classifier|qa_outputs|score|projector|"
    r"layer_weights|mlm_head|project_hid|project_q|quantizer|final_proj|masked_spec_embed)(?:\..*)?"
)
_LAYER = re.compile(r"(?:encoder|transformer)\.layers?\.(\d+)\.(.+)\.(?:weight|bias)|"
                    r"encoder\.layers\.(\d+)\.(attention\.gru_rel_pos_const)")  # fmt: skip
_IN_LAYER = (
    # BERT, RoBERTa, ELECTRA; DeBERTa; MPNet; DistilBERT; the wav2vec 2.0 family, WavLM's gate included
    (r"attention\.self\.(?:query|key|value)(?:_proj)?", "attention_probs"),
    (r"attention\.attn\.[qkv]", "attention_probs"),
    (r"attention\.[qkv]_(?:lin|proj)", "attention_probs"),
    (r"attention\.gru_rel_pos_(?:const|linear)", "attention_probs"),
    (r"attention\.output\.(?:dense|LayerNorm)|attention\.attn\.o|attention\.LayerNorm", "attention_output"),
    (r"attention\.out_proj|layer_norm", "attention_output"),
    (r"feed_forward\.intermediate_dense", "ffn_hidden"),
    (r"output\.(?:dense|LayerNorm)", "ffn_output"),
    (r"ffn\.lin2|output_layer_norm", "ffn_output"),
    (r"feed_forward\.output_dense|final_layer_norm", "ffn_output"),
    # no dropout follows: see the module's docstring
    (r"intermediate\.dense|ffn\.lin1", NOWHERE),
    (r"attention\.out_lin|sa_layer_norm", NOWHERE),
    (r"attention\.rel_attn_embed", NOWHERE),
)
_ABOVE_LAYERS = (
    (r"embeddings\.(?:word_embeddings|position_embeddings|token_type_embeddings|LayerNorm|embed_proj)\.\w+",
     "embeddings"),
    (r"feature_projection\..+|encoder\.pos_conv_embed\..+|encoder\.layer_norm\.\w+|layer_norm\.\w+", "embeddings"),
    (r"feature_extractor\..+|encoder\.upsample\..+", NOWHERE),
    (r"embeddings_project\.\w+|pooler\..+", NOWHERE),
    (r"encoder\.(?:rel_embeddings|LayerNorm|relative_attention_bias)\.\w+|encoder\.conv\..+", NOWHERE),
)  # fmt: skip
_IN_LAYER = tuple((re.compile(pattern), kind) for pattern, kind in _IN_LAYER)
_ABOVE_LAYERS = tuple((re.compile(pattern), kind) for pattern, kind in _ABOVE_LAYERS)


def bare_name(name: str) -> str:
    """A parameter's name without what peft, DataParallel and torch.compile add to it."""
    return _WRAPPERS.sub("", name).replace(".base_layer.", ".")


def tensor_sites(names: Iterable[str]) -> dict[str, str | None]:
    """Parameter name -> the site that its tensor belongs to, or None where it belongs to none.

    ``names``: of one model, as ``named_parameters`` gives them: of a bare encoder, of a model with a head, or of a
    wrapped one. If some names carry the encoder's prefix (``bert.``), the others belong to the head.
    Raises ``ValueError`` naming those that it cannot place.
    """
    names = list(names)
    bare = {name: bare_name(name) for name in names}
    prefixed = any(_PREFIX.match(name) for name in bare.values())
    found, unknown = {}, []
    for name, inner in bare.items():
        own = _PREFIX.match(inner)
        if (prefixed and not own) or ".lora_" in inner:
            found[name] = NOWHERE
            continue
        try:
            found[name] = _site(inner[own.end() :] if own else inner)
        except KeyError:
            unknown.append(name)
    if unknown:
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise ValueError(
            f"cannot tell which dropout site these parameters are upstream of: {', '.join(unknown[:8])}{more}. Known "
            "are the parameters of BERT, RoBERTa, DistilBERT, ELECTRA, DeBERTa-v2, MPNet, Wav2Vec2, HuBERT, WavLM, "
            "UniSpeech, Data2VecAudio and SEW; for another encoder give the model, which shows it, "
            "GuidedDropout.from_fisher(fisher, model=model), or the rates yourself, GuidedDropout(rates={...})"
        )
    return found


def _site(name: str) -> str | None:
    layer = _LAYER.fullmatch(name)
    if layer:
        index, role = (group for group in layer.groups() if group is not None)
        kind = next(kind for pattern, kind in (*_IN_LAYER, _STOP) if pattern.fullmatch(role))
        if kind is _UNKNOWN:
            raise KeyError(name)
        return None if kind is NOWHERE else f"layer.{index}.{kind}"
    if _HEAD.fullmatch(name):
        return NOWHERE
    for pattern, site in _ABOVE_LAYERS:
        if pattern.fullmatch(name):
            return site
    raise KeyError(name)


_UNKNOWN = object()
_STOP = (re.compile(r".*"), _UNKNOWN)
