"""Whether all of a sound file is there, for formats whose header or last page says it and whose decoder does not."""

from __future__ import annotations

import re

from .errors import CorruptDataError

_BEGINS = {b"OggS": b"OggS\0\2", b"fLaC": b"fLaC\0\0\0\x22"}  # first page of a stream, first block of a file
_UNKNOWN = 0x7F000000  # sizes from here on are marks of a pipe: sox writes 0x7f000008 into AIFF, AU has 0xffffffff


def check_whole(content: bytes, name: str) -> None:
    """Raise ``CorruptDataError`` for an Ogg, AIFF, AU, CAF or NIST file that ends before its declared end."""
    if content.count(_BEGINS.get(content[:4], content)) > 1:
        raise CorruptDataError(
            f"{name} holds a second recording behind the first, which would not be read; write it anew as one."
        )
    checks = {b"OggS": _ogg, b"FORM": _aiff, b".snd": _au, b"dns.": _au, b"caff": _caf, b"NIST": _nist}
    check = checks.get(content[:4])
    missing = check(content) if check else 0
    if missing:
        raise CorruptDataError(f"{name} is truncated: {missing}. Copy it again or delete its row.")


def _ogg(content: bytes) -> str | None:
    """The last page must have the end-of-stream flag and all its bytes (RFC 3533, section 6)."""
    page = content[content.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4:
        return "its last page is not the end of the stream that it promises"
    return _short(27 + page[26] + sum(page[27 : 27 + page[26]]), len(page))


def _aiff(content: bytes) -> str | None:
    at = 12
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "big")
        if content[at : at + 4] == b"SSND":
            return None if size >= _UNKNOWN else _short(size, len(content) - at - 8)
        at += 8 + size + size % 2
    return "it has no chunk of samples"


def _au(content: bytes) -> str | None:
    order = "big" if content[:1] == b"." else "little"
    offset, size = (int.from_bytes(content[at : at + 4], order) for at in (4, 8))
    return None if size >= _UNKNOWN else _short(size, len(content) - offset)


def _caf(content: bytes) -> str | None:
    at = 8
    while at + 12 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 12], "big", signed=True)
        if content[at : at + 4] == b"data":
            return None if size == -1 else _short(size, len(content) - at - 12)
        at += 12 + max(0, size)
    return "it has no chunk of samples"


def _nist(content: bytes) -> str | None:
    header = re.match(rb"NIST_1A\s+(\d+)\s", content[:64])
    length = int(header[1]) if header else 1024
    fields = dict(re.findall(rb"(\w+) -i (\d+)", content[:length]))
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    if not all(name in fields for name in names):
        return None
    count, channels, width = (int(fields[name]) for name in names)
    return _short(count * channels * width, len(content) - length)


def _short(promised: int, there: int) -> str | None:
    return f"its header promises {promised:,} bytes, and {max(0, there):,} are there" if promised > there else None
