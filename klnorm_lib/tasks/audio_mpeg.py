"""MP3 files frame by frame (ISO 11172-3): whether the last is whole, and how many there are.

Where no header counts the frames, the decoder guesses their number from the first and stops there.
"""

from __future__ import annotations

from .errors import CorruptDataError

_RATES = (44_100, 48_000, 32_000)
_KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
)


def counted(content: bytes, name: str) -> bytes:
    """An MP3 file whose first frame says how many follow; one that says so already comes back as it is.

    So does what is no MP3 file. Raises ``CorruptDataError`` for a file without that count whose last frame is cut.
    """
    first = after_tag(content)
    length = _frame(content, first)
    if length is None or _frame(content, first + length) is None:
        return content
    start = first
    for mark in (b"Xing", b"Info", b"VBRI"):
        at = content.find(mark, first, first + 64)
        if at > 0:
            if mark != b"VBRI" and content[at + 7 : at + 8] and content[at + 7] & 1:
                return content
            start = first + length  # a frame of facts without that count, or with one that the decoder does not read
    frames, position = 0, start
    while (length := _frame(content, position, content[first + 1 : first + 3])) is not None:
        if position + length > len(content):
            raise CorruptDataError(
                f"{name} is truncated: the last of its {frames + 1:,} frames is cut. Copy it again or delete its row."
            )
        frames, position = frames + 1, position + length
    return content[:first] + _count(content[first : first + 4], frames) + content[start:]


def after_tag(content: bytes) -> int:
    """Where the ID3 tags at the beginning end; 0 without any."""
    position = 0
    while content[position : position + 3] == b"ID3" and len(content) >= position + 10:
        size = 0
        for byte in content[position + 6 : position + 10]:
            size = size << 7 | byte & 0x7F
        position += 10 + size + (10 if content[position + 5] & 0x10 else 0)
    return position


def _frame(content: bytes, at: int, like: bytes | None = None) -> int | None:
    """Bytes of the layer III frame at ``at``; ``None`` if there is none, or not one of the stream that begins so."""
    if at + 4 > len(content) or content[at] != 0xFF or content[at + 1] & 0xE6 != 0xE2:
        return None
    version, kbits, rate = content[at + 1] >> 3 & 3, content[at + 2] >> 4, content[at + 2] >> 2 & 3
    if version == 1 or rate == 3 or kbits in (0, 15):
        return None
    if like is not None and (content[at + 1] & 0xFE, rate) != (like[0] & 0xFE, like[1] >> 2 & 3):
        return None
    old = version == 3
    hertz = _RATES[rate] >> (0 if old else 1 if version == 2 else 2)
    return (144 if old else 72) * _KBITS[not old][kbits] * 1000 // hertz + (content[at + 2] >> 1 & 1)


def _count(header: bytes, frames: int) -> bytes:
    """A frame of silence that holds Xing's count of those that follow."""
    old, mono = header[1] >> 3 & 3 == 3, header[3] >> 6 == 3
    header = bytes([header[0], header[1] | 1, (header[2] & 0x0C) | (0x90 if old else 0xC0), header[3]])  # room for it
    side = (17 if mono else 32) if old else (9 if mono else 17)
    marked = header + bytes(side) + b"Xing" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return marked.ljust(_frame(header + bytes(4), 0), b"\0")
