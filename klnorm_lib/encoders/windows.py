"""Windows of running text: sequence number i of a corpus is a function of (seed, i) and of nothing else.

So a sample of 500 sequences is the beginning of the sample of 2,000, and work that was interrupted goes on with the
text it would have seen.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from klnorm_lib.encoders.corpora import documents

CHARACTERS = 16  # a token, at most, that a window reads; English has four or five
HELD_OUT = 200  # every 200th document, as in pretraining
PARTS = ("all", "train", "heldout")
_SPACE = re.compile(r"\s")


def windows(
    corpora: Sequence[str | Path], tokenizer, n: int, length: int, seed: int = 0, part: str = "all"
) -> list[list[int]]:
    """Token ids of n windows of at most ``length`` tokens, the tokenizer's special tokens included.

    A position is drawn uniformly among all characters of the corpora, so a long document is met more often; the window
    begins at the next word, or earlier where the document would end too soon, and never leaves its document. Files are
    read twice and not kept in memory. ``corpora``: files or folders, see :func:`klnorm_lib.encoders.corpora.documents`.
    ``part``: of ``all`` documents; of every 200th (``heldout``); of the others (``train``).

    Raises ``ValueError`` for an unknown part or when n or ``length`` is too small, and what ``documents`` raises.
    """
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r}; choose one of {', '.join(PARTS)}")
    if n < 1 or length < 8:
        raise ValueError(f"at least one window of at least 8 tokens is needed, got n={n}, length={length}")
    paths = [Path(path) for path in corpora]
    lengths = [len(text) if _belongs(i, part) else 0 for i, text in enumerate(documents(paths))]
    ends = np.cumsum(lengths)
    if not sum(lengths):
        raise ValueError(
            f"too little text in {', '.join(map(str, paths))}: {len(lengths)} documents of 200 characters or more, "
            f"none in part {part!r}; add corpora"
        )
    wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for index in range(n):
        position = int(np.random.default_rng([seed, index]).integers(ends[-1]))
        document = int(np.searchsorted(ends, position, side="right"))
        wanted[document].append((index, position - int(ends[document - 1] if document else 0)))
    found: list[str] = [""] * n
    for number, text in enumerate(documents(paths)):
        for index, position in wanted.get(number, ()):
            found[index] = _window(text, position, length)
    return [list(ids) for ids in tokenizer(found, truncation=True, max_length=length)["input_ids"]]


def _belongs(index: int, part: str) -> bool:
    return part == "all" or (index % HELD_OUT == HELD_OUT - 1) == (part == "heldout")


def _window(text: str, position: int, length: int) -> str:
    start = max(0, min(position, len(text) - CHARACTERS // 2 * length))
    if start:
        space = _SPACE.search(text, start)
        start = space.end() if space and space.end() < len(text) else start
    return text[start : start + CHARACTERS * length]


def corpus(name: str | Path) -> Path:
    """The file or folder ``name``, or the corpus of that name in a folder of ``KLNORM_MIRROR``.

    Raises ``FileNotFoundError`` saying where it was looked for.
    """
    mirrors = [Path(p).expanduser() / "corpora" for p in os.environ.get("KLNORM_MIRROR", "").split(os.pathsep) if p]
    for path in (Path(name).expanduser(), *(mirror / name for mirror in mirrors)):
        if path.exists():
            return path
    where = f"and not in {', '.join(map(str, mirrors))}" if mirrors else "and KLNORM_MIRROR is not set"
    raise FileNotFoundError(f"no corpus {str(name)!r}: it is no file or folder here, {where}")


def checksums(corpora: Sequence[str | Path]) -> dict[str, str]:
    """Name of every corpus -> sha256 over the names and bytes of its files, in name order.

    Raises ``FileNotFoundError`` for a path that is not there.
    """
    sums = {}
    for path in map(Path, corpora):
        if not path.exists():
            raise FileNotFoundError(f"no corpus at {path}; name a file or a folder of running text")
        digest = hashlib.sha256()
        for file in sorted(f for f in ([path] if path.is_file() else path.rglob("*")) if f.is_file()):
            digest.update(file.name.encode())
            with open(file, "rb") as handle:
                for block in iter(lambda: handle.read(1 << 20), b""):
                    digest.update(block)
        sums[path.name] = digest.hexdigest()
    return sums
