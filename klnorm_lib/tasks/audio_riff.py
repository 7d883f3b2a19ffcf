"""WAV and its kin with true sizes: what a pipe or an interrupted recorder left in a header is put right or refused.

A WAV file says three times how long it is: in its first chunk, in the chunk ``data``, and by its own length. Writers to
a pipe cannot know it, a recorder that was switched off did not come back to write it, and many writers get the first
of the three wrong. What counts here is the samples that are there against what ``data`` promises (EBU Tech 3306 for
RF64, Microsoft's RIFF for WAV, Sony's Wave64).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .errors import CorruptDataError

UNKNOWN = 0x7FFF0000  # from here on a size is a mark: sox writes 0x7ffff000, arecord 0x7fffff00, ffmpeg 0xffffffff
_UNKNOWN_64 = 1 << 62
_AGAIN = "Copy it again or delete its row."
_SECONDS_OF_JUNK = 0.02  # bytes after the samples that are no chunk and shorter than this are no lost recording


def canonical(content: bytes, name: str) -> tuple[bytes, int | None]:
    """The same samples as a plain WAV file with true sizes, and the samples per channel that its ``fact`` declares.

    ``content``: WAV (also big-endian), RF64, BW64 or Wave64; anything else comes back as it is. A length that was never
    filled in (0, or a mark of a pipe) is what is there. Raises ``CorruptDataError`` where samples are missing, or where
    bytes follow them that look like samples which the header does not count.
    """
    kind, found = content[:4], {}
    if kind in (b"RIFF", b"RIFX", b"RF64", b"BW64") and content[8:12] == b"WAVE":
        wide, order, start = False, ">" if kind == b"RIFX" else "<", 12
    elif kind == b"riff" and content[24:28] == b"wave":
        wide, order, start = True, "<", 40
    else:
        return content, None
    for identity, body, size in _chunks(content, start, order, wide):
        if identity == b"data":
            break
        found[identity] = content[body : body + size]
    else:
        raise CorruptDataError(f"{name} is truncated: its header ends before the samples. {_AGAIN}")
    shape = found.get(b"fmt ", b"")
    if len(shape) < 16:
        raise CorruptDataError(f"{name} is not a readable sound file (a WAV without a format chunk). {_AGAIN}")
    if size == 0xFFFFFFFF and len(found.get(b"ds64", b"")) >= 16:
        size = struct.unpack("<Q", found[b"ds64"][8:16])[0]
    samples = _samples(content, name, body, size, order, wide, shape)
    pieces = (b"fmt ", shape), (b"data", samples)
    chunks = b"".join(n + struct.pack(order + "I", len(c)) + c + b"\0" * (len(c) % 2) for n, c in pieces)
    head = b"RIFX" if order == ">" else b"RIFF"
    fact = found.get(b"fact", b"")
    declared = struct.unpack(order + "I", fact[:4])[0] if len(fact) >= 4 else None
    return head + struct.pack(order + "I", 4 + len(chunks)) + b"WAVE" + chunks, declared


def _samples(content: bytes, name: str, body: int, size: int, order: str, wide: bool, shape: bytes) -> bytes:
    rate, block = struct.unpack(order + "IH", shape[8:14])
    block, there = max(1, block), len(content) - body
    marked = size >= _UNKNOWN_64 or (size >= UNKNOWN and size > there)
    if marked or (not size and not _are_chunks(content, body, order, wide)):
        size = there
    elif size // block > there // block:
        whole = struct.unpack(order + "I", content[4:8])[0] in (len(content), len(content) - 8)
        if wide or not whole or size not in (len(content), len(content) - 8):
            raise CorruptDataError(
                f"{name} is truncated: {there // block:,} samples or blocks could be read, its header promises "
                f"{size // block:,}. {_AGAIN}"
            )
        size = there  # the writer put the length of the file, which is right, where that of the samples belongs
    size = min(size, there)
    rest = body + size + (-size % 8 if wide else size % 2)
    after = content[rest:]
    is_second = after[:4] in (b"RIFF", b"RIFX", b"RF64")
    if is_second or (len(after) > max(16, _SECONDS_OF_JUNK * rate) and not _harmless(content, rest, order, wide)):
        raise CorruptDataError(
            f"{name}: its header counts {size // block:,} samples, and {len(after):,} bytes follow them that are "
            f"{'a second recording' if is_second else 'no chunk of a WAV file'}. Write the file anew (for example "
            "`sox --ignore-length in.wav out.wav`, and listen to it), or delete its row."
        )
    return content[body : body + size // block * block]


def _chunks(content: bytes, start: int, order: str, wide: bool) -> Iterator[tuple[bytes, int, int]]:
    """(four letters, begin of the contents, their declared length) of every chunk whose header is there."""
    header = 24 if wide else 8
    while start + header <= len(content):
        identity = content[start : start + 4]
        if wide:
            size = struct.unpack("<Q", content[start + 16 : start + 24])[0]
            size = size - header if header <= size < _UNKNOWN_64 else _UNKNOWN_64 if size else 0
        else:
            size = struct.unpack(order + "I", content[start + 4 : start + 8])[0]
        body = start + header
        yield identity, body, size
        start = body + size + (-size % 8 if wide else size % 2)
        unpadded = not wide and size % 2 and _is_name(content[start - 1 : start + 3])
        if unpadded and not _is_name(content[start : start + 4]):
            start -= 1  # a writer that forgot the byte after a chunk of odd length


def _is_name(four: bytes) -> bool:
    return len(four) == 4 and all(32 <= letter < 127 for letter in four)


def _are_chunks(content: bytes, start: int, order: str, wide: bool) -> bool:
    """Whether chunks with names fill what follows ``start`` to the end (a last byte of padding may lack)."""
    for identity, body, size in _chunks(content, start, order, wide):
        if not _is_name(identity) or body + size > len(content):
            return False
        start = body + size + (-size % 8 if wide else size % 2)
    return start >= len(content)


def _harmless(content: bytes, start: int, order: str, wide: bool) -> bool:
    """Whether what follows the samples is tags, zeros, or begins with a chunk that is whole."""
    after = content[start:]
    if after.startswith((b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")) or not after.strip(b"\0"):
        return True
    identity, body, size = next(_chunks(content, start, order, wide))
    return _is_name(identity) and body + size <= len(content)
