"""What is kept of a Fisher information: sums for every tensor as JSON, or every element as safetensors.

Both carry where they come from. Names are those of the encoder, without the prefix that a model with a head puts before
them (``bert.``); the head's own parameters keep their names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.encoders.sources import RANDOM, portable

FORMAT = 1
TABLES = Path(__file__).parent.parent / "fisher_tables"


@dataclass(frozen=True)
class TensorSum:
    """The Fisher information of one parameter tensor: its ``sum`` over all elements, and how many there are."""

    sum: float
    numel: int

    @property
    def mean(self) -> float:
        """Mean over the elements; 0 where there are none."""
        return self.sum / max(1, self.numel)


@dataclass(frozen=True)
class FisherTable(Mapping):
    """Sums of the diagonal Fisher information, one a parameter tensor: name -> :class:`TensorSum`.

    ``provenance``: what they were made from: model, sha256 of the weights, number of sequences and tokens, corpora,
    mask probability, seed, versions. A table of a model with some hundred tensors is a few kilobytes.

    A tensor without elements has the sum 0 and the count 0. Raises ``ValueError`` naming the tensor if a sum is
    negative or not finite, or if there is a sum of no elements.
    """

    tensors: dict[str, TensorSum]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tensors:
            raise ValueError("the table has no tensor")
        for name, entry in self.tensors.items():
            if not (math.isfinite(entry.sum) and entry.sum >= 0):
                raise ValueError(f"the Fisher information of {name} sums to {entry.sum}; squares cannot")
            if entry.numel < 0 or (entry.sum and not entry.numel):
                raise ValueError(f"{name} is said to have {entry.numel} elements, and a sum of {entry.sum}")

    def __getitem__(self, name: str) -> TensorSum:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @classmethod
    def of(cls, fisher: Mapping[str, Tensor], base: str = "", **provenance: Any) -> FisherTable:
        """The table of full tensors; ``base`` is the encoder's prefix (``model.base_model_prefix``), taken off."""
        tensors = {n: TensorSum(float(t.double().sum()), t.numel()) for n, t in without_prefix(fisher, base).items()}
        return cls(tensors, provenance)

    def save(self, path: str | Path) -> Path:
        """Write the table as JSON; returns the path."""
        tensors = {name: {"sum": entry.sum, "numel": entry.numel} for name, entry in self.tensors.items()}
        saved = {"format": FORMAT, "provenance": self.provenance, "tensors": tensors}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(saved, indent=1) + "\n", "utf-8")
        return Path(path)

    @classmethod
    def load(cls, path_or_name: str | Path) -> FisherTable:
        """A table from a file (JSON, or full tensors in safetensors), or one that ships, by its encoder's name.

        Raises ``FileNotFoundError`` naming the tables that ship and the command that makes another, ``ValueError`` for
        a file that is no table.
        """
        path = find(path_or_name, ".json")
        if path.suffix == ".safetensors":
            fisher, provenance = load_fisher(path)
            return cls.of(fisher, **provenance)
        try:
            saved = json.loads(path.read_text("utf-8"))
            if saved["format"] != FORMAT:
                raise ValueError(f"it has format {saved['format']}, this library reads {FORMAT}")
            tensors = {name: TensorSum(float(t["sum"]), int(t["numel"])) for name, t in saved["tensors"].items()}
            return cls(tensors, dict(saved["provenance"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path} is no Fisher table: {what}; make one with `klnorm fisher`") from error


def shipped(ending: str = ".json") -> list[str]:
    """Encoders whose table (``.json``) or full tensors (``.safetensors``) ship with the library."""
    return sorted(path.name.removesuffix(ending).replace("--", "/", 1) for path in TABLES.glob(f"*{ending}"))


def find(path_or_name: str | Path, ending: str = ".json") -> Path:
    """The file of a table: a path that is there, or what ships for an encoder of that name.

    Raises ``FileNotFoundError`` saying what there is and how to make what there is not.
    """
    path = Path(path_or_name).expanduser()
    if path.is_file():
        return path
    bare = portable(str(path_or_name)).removesuffix(RANDOM)
    there = TABLES / f"{bare.replace('/', '--')}{ending}"
    # Weights drawn afresh have another Fisher information than those that the table was made from.
    if there.is_file() and not str(path_or_name).endswith(RANDOM):
        return there
    raise FileNotFoundError(
        f"no Fisher information of {path_or_name!r}: it is no file, and what ships is of {', '.join(shipped(ending))}. "
        f"Make it with `klnorm fisher --model {path_or_name} --text CORPUS --n 1000 --out FOLDER` and name the file"
    )


def without_prefix(fisher: Mapping[str, Tensor], base: str) -> dict[str, Tensor]:
    """The same tensors under the encoder's own names: ``base.`` taken off where it is.

    Raises ``ValueError`` if two names would become one.
    """
    prefix = f"{base}." if base else ""
    named = {name.removeprefix(prefix): tensor for name, tensor in fisher.items()}
    if len(named) < len(fisher):
        raise ValueError(f"two tensors have the same name once {prefix!r} is taken off")
    return named


def encoder_only(model: nn.Module, fisher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the Fisher information of ``model``, that of its encoder, under the encoder's own names."""
    prefix = f"{model.base_model_prefix}."
    return {name.removeprefix(prefix): tensor for name, tensor in fisher.items() if name.startswith(prefix)}


def save_fisher(
    path: str | Path, fisher: Mapping[str, Tensor], provenance: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> Path:
    """Write full tensors as safetensors, ``provenance`` in the file's header; returns the path.

    ``dtype``: bfloat16 halves the file and keeps the range (squares of gradients span twenty powers of ten and more,
    which float16 does not), at three significant digits. Raises ``ValueError`` for another dtype, or naming a tensor
    with an element that is negative or not finite.
    """
    from safetensors.torch import save_file

    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"save as torch.float32 or torch.bfloat16, not {dtype}, whose range is too small")
    _check(fisher, "the tensors given")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    kept = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in fisher.items()}
    save_file(kept, path, metadata={"format": "pt", "klnorm_fisher": json.dumps(dict(provenance))})
    return Path(path)


def load_fisher(path_or_name: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """``(fisher, provenance)``: full tensors in float32 from a file, or those that ship for an encoder of that name.

    Raises ``FileNotFoundError`` as :func:`find` does, and ``ValueError`` for a file that is truncated, was not written
    by :func:`save_fisher`, or has elements that no square can be.
    """
    from safetensors import SafetensorError, safe_open

    path = find(path_or_name, ".safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            fisher = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is corrupt or truncated ({error}); make it again with `klnorm fisher`") from error
    if "klnorm_fisher" not in metadata:
        raise ValueError(f"{path} says nothing of its origin: it has other tensors than a Fisher information")
    _check(fisher, str(path))
    return fisher, json.loads(metadata["klnorm_fisher"])


def _check(fisher: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in fisher.items():
        if not torch.isfinite(tensor).all() or (tensor < 0).any():
            raise ValueError(f"{name} in {where} has an element that is negative or not finite; squares cannot be")
