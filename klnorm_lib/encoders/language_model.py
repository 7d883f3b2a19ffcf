"""An encoder with the head that it was pretrained with: the model whose loss the Fisher information belongs to."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from klnorm_lib.encoders.loading import _quietly
from klnorm_lib.encoders.no_code import open_pretrained
from klnorm_lib.encoders.sources import HERE, EncoderSource, _sha256, portable, resolve

HEADS = HERE / "mlm_heads"


def head_folder(name: str) -> Path:
    """Where the masked-LM head of an encoder that came without one is kept, if we trained it."""
    return HEADS / portable(name).replace("/", "--")


def load_language_model(name: str, source: str = "auto", kind: str = "auto", head: str | Path | None = None):
    """``(model, tokenizer, provenance)`` of a masked, causal or seq2seq language model, in evaluation mode, float32.

    ``name``, ``source``: see :func:`klnorm_lib.encoders.resolve`. ``kind``: masked, causal, seq2seq, or ``auto``, which
    goes by the architecture named in the configuration. ``head``: folder with a masked-LM head (as written by
    ``klnorm mlm-head``) for a checkpoint that has none; not given, the one that we ship for the encoder.
    ``model.klnorm_kind`` is the kind found; ``provenance`` tells the weights of encoder and head.

    Raises what ``resolve`` raises, and ``ValueError`` for a checkpoint without a pretrained head when there is none to
    put in its place, or a head of other shapes.
    """
    from transformers import AutoConfig, AutoTokenizer

    found = resolve(name, source)
    config = open_pretrained(AutoConfig, found.location, revision=found.revision)
    kind = _kind(config) if kind == "auto" else kind
    model, missing = _model(kind, found, config)
    tokenizer = open_pretrained(AutoTokenizer, found.location, revision=found.revision)
    model.klnorm_source, model.klnorm_kind = found, kind
    provenance = {"encoder": found.provenance(), "kind": kind, "head": None}
    folder = Path(head) if head is not None else head_folder(name)
    if missing:
        if not (folder / "model.safetensors").is_file():
            raise ValueError(
                f"{name} came without the head that it was pretrained with ({missing[0]} is missing), and its loss "
                f"cannot be computed; train one on the frozen encoder with `klnorm mlm-head --model {name} ...` and "
                "name its folder with --head"
            )
        provenance["head"] = load_head(model, folder)
    return model.eval(), tokenizer, provenance


def _kind(config) -> str:
    from transformers import AutoModelForMaskedLM

    if config.is_encoder_decoder:
        return "seq2seq"
    classes = " ".join(config.architectures or ())
    if "CausalLM" in classes or "LMHead" in classes:
        return "causal"
    return "masked" if type(config) in AutoModelForMaskedLM._model_mapping else "causal"


def _model(kind: str, found: EncoderSource, config) -> tuple[nn.Module, list[str]]:
    """The model, and which weights of its head the checkpoint lacks (none for weights drawn afresh)."""
    import transformers

    autos = {"masked": "AutoModelForMaskedLM", "causal": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM"}
    if kind not in autos:
        raise ValueError(f"unknown kind of language model {kind!r}; choose one of {', '.join(autos)}")
    auto = getattr(transformers, autos[kind])
    if type(config) not in auto._model_mapping:
        raise ValueError(f"{found.name} ({config.model_type}) has no {kind} language model in transformers")
    if found.random:
        return auto.from_config(config, dtype=torch.float32, trust_remote_code=False), []
    loader = type("Loader", (), {"from_pretrained": staticmethod(_with_information(auto))})
    model, information = _quietly(loader, found, config)
    return model, sorted(information["missing_keys"])


def _with_information(auto):
    return lambda location, trust_remote_code=False, **options: open_pretrained(
        auto, location, output_loading_info=True, **options
    )


def head_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters outside the encoder, those tied to the encoder's left out: name -> parameter."""
    inside = {id(p) for p in model.base_model.parameters()}
    return {name: p for name, p in model.named_parameters() if id(p) not in inside}


def load_head(model: nn.Module, folder: Path) -> dict:
    """Copy the head of ``folder`` into ``model``; returns its name, sha256 and what encoder it was trained on."""
    from safetensors.torch import load_file

    file = Path(folder) / "model.safetensors"
    weights, own = load_file(file), head_parameters(model)
    other = {name: tuple(t.shape) for name, t in weights.items()}
    mine = {name: tuple(p.shape) for name, p in own.items()}
    if mine != other:
        wrong = sorted({name for name, _ in mine.items() ^ other.items()})[0]
        raise ValueError(
            f"the head in {folder} does not fit {type(model).__name__}: {wrong} is {other.get(wrong, 'missing')}, and "
            f"should be {mine.get(wrong, 'absent')}"
        )
    recipe = json.loads((Path(folder) / "training.json").read_text("utf-8"))
    trained_on, here = recipe["encoder"]["sha256"], model_sha(model)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
    stat = file.stat()
    sha = _sha256(((str(file), stat.st_mtime_ns, stat.st_size),))
    provenance = {"name": Path(folder).name, "sha256": sha, "trained_on": trained_on}
    if here is not None and here != trained_on:
        provenance["note"] = "trained on other weights of the encoder"
    return provenance


def model_sha(model: nn.Module) -> str | None:
    """The fingerprint of the weights that a loaded model came from, where it is known."""
    return getattr(getattr(model, "klnorm_source", None), "sha256", None)
