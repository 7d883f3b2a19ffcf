"""Which weights a name stands for, and their fingerprint."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from klnorm_lib.encoders.no_code import inside

SOURCES = ("auto", "hub", "mirror", "built-in")
HERE = Path(__file__).parent
RANDOM = ":random"
LEARNING_RATE = 2e-5  # usual for encoders of a hundred million parameters
INDEX = "model.safetensors.index.json"
# What a tokenizer or a feature extractor is made from, besides the configuration and the weights.
_PROCESSOR = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "spm.model", "spiece.model", "tokenizer.model"),
    *("sentencepiece.bpe.model", "bpe.codes", "preprocessor_config.json"),
)
# Small encoders want larger steps: rates that did well in the records of their cards.
_SMALL = {"klnorm-nano": 1e-3, "klnorm-tiny": 3e-4, "klnorm-tiny-speech": 1e-3}


@dataclass(frozen=True)
class EncoderSource:
    """Where an encoder was found: ``source`` (hub, mirror, folder, built-in), ``location`` (hub id or folder),
    ``revision`` (hub commit, else None), ``sha256`` of the weights (None on the hub, where the commit stands for
    them; of configuration and vocabulary when the weights are to be drawn afresh, which is ``random``)."""

    name: str
    source: str
    location: str
    revision: str | None
    sha256: str | None
    random: bool = False

    def provenance(self) -> dict:
        """What a record keeps; folders by their name only, since paths mean nothing elsewhere."""
        return {
            "name": Path(self.name).name if self.source == "folder" else self.name,
            "source": self.source,
            "id": self.location if self.source == "hub" else Path(self.location).name,
            "revision": self.revision,
            "sha256": self.sha256,
            "random": self.random,
        }

    def files(self) -> dict[str, str] | None:
        """SHA-256 of each file that the encoder and its processor are made from; None on the hub (see ``revision``)."""
        if self.source not in ("built-in", "folder", "mirror"):
            return None
        folder = Path(self.location)
        named = ["config.json", *_PROCESSOR, *([] if self.random else _weights_named(folder))]
        there = [folder / name for name in named if (folder / name).is_file()]
        return {path.name: _sha256(_stamp([path])) for path in there}


def names() -> list[str]:
    """Encoders that ship with the library; ``NAME:random`` is the same architecture with fresh weights."""
    return sorted(folder.parent.name for folder in HERE.glob("*/config.json"))


def learning_rate(name: str) -> float:
    """A peak learning rate to begin with: 2e-5, or what suits one of the small encoders that ship."""
    return _SMALL.get(name.removesuffix(RANDOM), LEARNING_RATE)


def resolve(name: str, source: str = "auto") -> EncoderSource:
    """Find the weights that ``name`` stands for.

    ``name``: a built-in encoder, a folder, or a hub id. ``auto`` tries built-in names and folders, then the folders
    of ``KLNORM_MIRROR`` (``models/<org>--<name>``), then the hub; a real encoder is never replaced by a built-in one.
    Raises ``ValueError`` for an unknown source or name, ``FileNotFoundError`` when the folder or hub id has no weights,
    saying what to set.
    """
    found = find(name, source)
    if found.source == "hub":
        return found
    return replace(found, sha256=_fingerprint(Path(found.location), found.random))


def find(name: str, source: str = "auto") -> EncoderSource:
    """As :func:`resolve`, without reading the weights: their ``sha256`` is None."""
    if source not in SOURCES:
        raise ValueError(f"unknown source {source!r}; choose one of {', '.join(SOURCES)}")
    bare = name.removesuffix(RANDOM)
    random = bare != name

    def at(kind: str, folder: Path) -> EncoderSource:
        _weights(folder, random)
        return EncoderSource(name, kind, str(folder), None, None, random)

    if bare in names() and source in ("auto", "built-in"):
        return at("built-in", HERE / bare)
    if source == "built-in":
        raise ValueError(f"no built-in encoder {bare!r}{_near(bare)}; there are {', '.join(names()) or 'none'}")
    if source == "auto" and Path(bare).expanduser().is_dir():
        return at("folder", Path(bare).expanduser().resolve())
    mirrors = [Path(p).expanduser() for p in os.environ.get("KLNORM_MIRROR", "").split(os.pathsep) if p]
    if source in ("auto", "mirror"):
        for mirror in mirrors:
            folder = mirror / "models" / bare.replace("/", "--")
            if folder.is_dir():
                return at("mirror", folder)
        if source == "mirror":
            where = ", ".join(str(m / "models") for m in mirrors) or "KLNORM_MIRROR, which is not set"
            raise FileNotFoundError(f"no folder {bare.replace('/', '--')} in {where}; copy the encoder there")
    return EncoderSource(name, "hub", bare, _hub_revision(bare), None, random)


def portable(name: str) -> str:
    """``.../models/org--name`` of a mirror is ``org/name``; any other folder goes by its last part."""
    bare = name.removesuffix(":random")
    path = Path(bare).expanduser()
    if not path.is_dir():
        return name
    path = path.resolve()
    short = path.name.replace("--", "/", 1) if path.parent.name == "models" else path.name
    return short + name[len(bare) :]


def _hub_revision(repo: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    unknown = f"unknown encoder {repo!r}{_near(repo)}: not built in ({', '.join(names())}), not a folder"
    if repo.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{unknown}; check the path")
    try:
        return HfApi().model_info(repo).sha
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ValueError(f"{unknown}, and not on the hub; check the spelling") from error
    except Exception as error:
        raise FileNotFoundError(
            f"{unknown}, not in KLNORM_MIRROR, and the hub cannot be reached; put it in a mirror folder "
            f"(models/{repo.replace('/', '--')}) and set KLNORM_MIRROR, or connect ({type(error).__name__})"
        ) from error


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, names(), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _weights(folder: Path, random: bool = False) -> list[Path]:
    """The files of weights of a folder; raises ``FileNotFoundError`` where they or the configuration are missing."""
    files = sorted(folder.glob("model*.safetensors"))
    if not (folder / "config.json").exists() or not (files or random):
        raise FileNotFoundError(f"{folder} holds no encoder: config.json and model.safetensors are needed")
    _weights_named(folder)
    settings = _json(folder / "tokenizer_config.json")
    for key in ("tokenizer_file", "vocab_file", "merges_file", "fast_tokenizer_files"):
        names = settings.get(key) or []
        names = names if isinstance(names, list) else [names]
        _check_names(names, key, folder / "tokenizer_config.json")
        for name in names:
            if (folder / name).exists():  # old files name paths of the machine that they were saved on
                inside(folder, name, str(folder / "tokenizer_config.json"))
    return files


def _weights_named(folder: Path) -> list[str]:
    """The files of weights that transformers reads; raises ``ValueError`` for one that is outside the folder."""
    chosen = _json(folder / "config.json").get("transformers_weights")
    if chosen is not None:
        _check_names([chosen], "transformers_weights", folder / "config.json")
        inside(folder, chosen, str(folder / "config.json"))
    first = chosen or "model.safetensors"
    if not (folder / INDEX).is_file() and not str(first).endswith(".index.json"):
        return [first]
    index = folder / (first if str(first).endswith(".index.json") else INDEX)
    placed = _json(index).get("weight_map", {})
    _check_names(placed.values() if isinstance(placed, dict) else [placed], "weight_map", index)
    shards = sorted(set(placed.values()))
    for name in shards:
        inside(folder, name, str(index))
    return [first] if first != index.name and (folder / first).is_file() else [index.name, *shards]


def _check_names(names: Iterable[object], key: str, file: Path) -> None:
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise ValueError(f"{file}: {key} has {wrong[0]!r} where the name of a file should be; save the encoder again")


def _json(path: Path) -> dict:
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # transformers says what is wrong with it
    return values if isinstance(values, dict) else {}


def _stamp(files: list[Path]) -> tuple[tuple[str, int, int], ...]:
    return tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in files)


def _fingerprint(folder: Path, random: bool = False) -> str:
    files = _weights(folder, random)
    if random:
        return _architecture(folder)
    return _sha256(_stamp(files))


def _architecture(folder: Path) -> str:
    """Fingerprint of what weights drawn afresh depend on: the configuration and the vocabulary, not the old weights."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    decisive = {
        k: v for k, v in config.items() if k not in ("architectures", "dtype", "torch_dtype", "transformers_version")
    }
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode())
    for name in ("tokenizer.json", "vocab.txt", "preprocessor_config.json"):
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()


@functools.lru_cache(maxsize=32)
def _sha256(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, _, _ in files:
        with open(file, "rb") as handle:
            for block in iter(lambda: handle.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()
