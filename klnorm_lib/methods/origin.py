"""Whether Fisher information, or what was made of it, belongs to a model: which weights it is of, names and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from klnorm_lib.sites.parameters import Named
from klnorm_lib.sites.walk import unwrap


def origin(model: nn.Module) -> tuple[str | None, str | None]:
    """Name and sha256 of the weights that the model was loaded from, as far as that is recorded."""
    source = getattr(unwrap(model), "klnorm_source", None)
    if source is not None:
        return source.name, source.sha256
    return getattr(unwrap(model).config, "_name_or_path", None) or None, None


def named_origin(model: nn.Module, instead: str) -> str:
    """The name of the weights that the model was loaded from, under which its Fisher information is looked up.

    Raises ``ValueError`` for a model that does not say; ``instead`` says what to do then.
    """
    name, _ = origin(model)
    if not name:
        raise ValueError(
            "the model does not say which weights it was made from, so no Fisher information can be looked up; "
            f"{instead} (`klnorm fisher --model FOLDER --text CORPUS` makes one)"
        )
    return name


def check_weights(model: nn.Module, source: str, provenance: Mapping[str, Any], instead: str = "") -> None:
    """Raise ``ValueError`` when the Fisher information of ``source``, this model by name, was made from other weights.

    ``provenance``: what a Fisher file says about itself; without a checksum on both sides nothing is compared.
    ``instead`` is what else could be done.
    """
    name, sha256 = origin(model)
    made_of = provenance.get("sha256")
    if source == name and sha256 and made_of and sha256 != made_of:
        raise ValueError(
            f"the Fisher information of {source} was made from other weights (sha256 {made_of[:12]}) than this model's "
            f"({sha256[:12]}); make it of these with `klnorm fisher --model {source} --text CORPUS` and name the file"
            f"{instead}"
        )


def check_tensors(
    found: Sequence[Named], tensors: Mapping[str, Tensor], source: object, advice: str, whole: bool = False
) -> None:
    """Raise ``ValueError`` unless ``tensors`` has one of the right shape for each of ``found``, by name.

    ``whole``: and no other ones. ``source`` and ``advice`` say whose they are and what to do.
    """
    lacking = [each.name for each in found if each.name not in tensors]
    if lacking:
        raise ValueError(
            f"{source} does not fit this model: it has nothing for {', '.join(lacking[:4])}"
            f"{' ...' if len(lacking) > 4 else ''}; was it made from another encoder? {advice}"
        )
    for each in found:
        shape = tensors[each.name].shape
        if shape != each.parameter.shape:
            raise ValueError(
                f"{source} does not fit this model: it has {each.name} in the shape {tuple(shape)}, the model in "
                f"{tuple(each.parameter.shape)}, so it was made from another encoder. {advice}"
            )
    more = sorted(set(tensors) - {each.name for each in found}) if whole else []
    if more:
        raise ValueError(
            f"{source} does not fit this model: {', '.join(more[:4])}{' ...' if len(more) > 4 else ''} do not train or "
            f"are not there. {advice}"
        )
