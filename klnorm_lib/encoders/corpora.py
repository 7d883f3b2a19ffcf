"""Running text from a mirror's ``corpora`` folder, one document at a time."""

from __future__ import annotations

import html
import json
import lzma
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

_TAG = re.compile(r"<[^>]+>|\{\{[^}]*\}\}|__[A-Z]+__")


def documents(paths: list[Path], min_characters: int = 200) -> Iterator[str]:
    """Documents of every corpus file below ``paths``, in name order, shorter ones left out.

    Reads ``*.txt``, ``*.txt.xz`` (whole files, or WikiExtractor ``<doc>`` blocks), ``*.jsonl.xz`` (field ``text``)
    and ``*.tar.xz`` of plain text. Raises ``FileNotFoundError`` when a path holds none of these, and
    ``ValueError`` naming the file when one cannot be decompressed.
    """
    for path in paths:
        for file in files(path):
            try:
                for text in _reader(file)(file):
                    if len(text) >= min_characters:
                        yield text
            except (lzma.LZMAError, EOFError, tarfile.TarError, json.JSONDecodeError) as error:
                raise ValueError(f"corpus file {file} is damaged ({error}); copy it again") from error


def files(path: Path) -> list[Path]:
    """The corpus files at or below ``path``, in name order; raises ``FileNotFoundError`` when there are none."""
    found = sorted(f for f in ([path] if path.is_file() else path.rglob("*")) if _reader(f))
    if not found:
        raise FileNotFoundError(f"no .txt, .txt.xz, .jsonl.xz or .tar.xz file in {path}")
    return found


def _reader(file: Path):
    for ending, reader in ((".jsonl.xz", _jsonl), (".tar.xz", _tar), (".txt.xz", _text), (".txt", _text)):
        if file.name.endswith(ending):
            return reader
    return None


def _jsonl(file: Path) -> Iterator[str]:
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield _TAG.sub(" ", html.unescape(json.loads(line)["text"])).strip()


def _tar(file: Path) -> Iterator[str]:
    with tarfile.open(file) as archive:
        for member in archive:
            if member.isfile():
                yield archive.extractfile(member).read().decode("utf-8", errors="replace").strip()


def _text(file: Path) -> Iterator[str]:
    opened = lzma.open if file.suffix == ".xz" else open
    with opened(file, "rt", encoding="utf-8") as lines:
        block: list[str] = []
        for line in lines:
            if line.startswith(("<doc ", "</doc>")):
                yield "".join(block).strip()
                block = []
            else:
                block.append(line)
        yield "".join(block).strip()
