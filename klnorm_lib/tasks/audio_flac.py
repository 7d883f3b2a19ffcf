"""FLAC files that were written to a pipe: the number of samples, which their header lacks, from the last frame.

The format is RFC 9639: section 8.2 (the header) and section 9.1 (the frames).
"""

from __future__ import annotations

_CODED = {1: 192, **{c: 144 << c for c in range(2, 6)}, **{c: 1 << c for c in range(8, 16)}}


def counted(content: bytes) -> bytes:
    """A FLAC file whose header says how many samples there are; one that says so already comes back as it is."""
    if content[:4] != b"fLaC" or len(content) < 42 or content[21] & 0x0F or any(content[22:26]):
        return content
    position = len(content)
    while (position := content.rfind(b"\xff", 42, position)) > 0:
        end = _end(content, position)
        if end is not None:
            return (
                content[:21]
                + bytes([content[21] | end >> 32 & 0x0F])
                + (end & 0xFFFFFFFF).to_bytes(4, "big")
                + content[26:]
            )
    return content


def _end(content: bytes, at: int) -> int | None:
    """Samples up to the end of the frame whose header is at ``at``; ``None`` if there is none."""
    if content[at + 1 : at + 2] not in (b"\xf8", b"\xf9"):
        return None
    header = content[at : at + 16]
    numbered, position = _coded_number(header)
    if numbered is None or position >= len(header):
        return None
    code = header[2] >> 4
    if code in (6, 7):
        wide = code - 5
        size, position = int.from_bytes(header[position : position + wide], "big") + 1, position + wide
    elif code in _CODED:
        size = _CODED[code]
    else:
        return None
    position += {12: 1, 13: 2, 14: 2}.get(header[2] & 0x0F, 0)
    if position >= len(header) or _crc8(header[:position]) != header[position]:
        return None
    fixed = int.from_bytes(content[8:10], "big")  # samples of every frame but the last
    return (numbered if header[1] & 1 else numbered * fixed) + size


def _coded_number(header: bytes) -> tuple[int | None, int]:
    """The number that begins at byte 4, coded like a letter of UTF-8, and where it ends."""
    if len(header) < 5:
        return None, 0
    first = header[4]
    if first < 0x80:
        return first, 5
    more = next((n for n in range(1, 7) if not first << (n + 1) & 0x80), 0)
    if not 0xC0 <= first < 0xFF or len(header) < 5 + more:
        return None, 0
    number = first & (0x3F >> more)
    for byte in header[5 : 5 + more]:
        if byte & 0xC0 != 0x80:
            return None, 0
        number = number << 6 | byte & 0x3F
    return number, 5 + more


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 0xFF if value & 0x80 else value << 1
    return value
