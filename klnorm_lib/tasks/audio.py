"""From the bytes of a sound file to samples: mono, 16 kHz, float32, with every check a bad file must not pass."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd

import numpy as np

from .errors import CorruptDataError, TaskError

SAMPLING_RATE = 16_000
MIN_SECONDS = 0.05  # twice the 25 ms that the first layers of a wav2vec-style encoder look at
SILENCE = 1e-3  # peak; -60 dB of full scale
CLIPPED = 0.25  # share of samples at full scale
_FULL_SCALE = 0.999
_LOSSY = ("VORBIS", "OPUS", "MPEG")


def decode(
    content: bytes, name: str, rate: int | None = None, samples: int | None = None, silence_ok: bool = False
) -> tuple[np.ndarray, str]:
    """Samples of a sound file as float32 at 16 kHz, channels averaged, and a SHA-256 of what was recorded.

    ``content``: a file that libsndfile reads (WAV, FLAC, Ogg, MP3, AIFF); ``name`` is named in errors; ``rate`` (Hz)
    and ``samples`` (per channel) are what a table beside the file declares. Resampling is polyphase (Kaiser window).
    The sum is over the samples before resampling, so that WAV and FLAC of one recording agree; a lossy file, whose
    samples depend on the decoder, has the sum of its bytes. Raises ``CorruptDataError`` for a file that is empty,
    unreadable, cut off, silent (unless ``silence_ok``), clipped, too short, not finite, or not as declared.
    """
    with _opened(content, name) as file:
        found, promised, lossy = file.samplerate, file.frames, file.subtype.startswith(_LOSSY)
        wave = file.read(dtype="float32", always_2d=True)
    _check_whole(content, name, len(wave), promised, samples)
    if rate is not None and rate != found:
        raise CorruptDataError(
            f"{name} is sampled at {found:,} Hz, but its table says {rate:,} Hz. Correct the table, or copy the file "
            "again: at the wrong rate it would play too fast or too slow."
        )
    mono = wave[:, 0] if wave.shape[1] == 1 else wave.mean(axis=1, dtype=np.float32)
    _check_sound(mono, found, name, silence_ok)
    native = content if lossy else f"{found}\n".encode() + mono.astype("<f4").tobytes()
    return resample(mono, found), hashlib.sha256(native).hexdigest()


def describe(content: bytes, name: str) -> tuple[int, int]:
    """Sampling rate (Hz) and samples per channel that a sound file says it has; raises as ``decode``."""
    with _opened(content, name) as file:
        return file.samplerate, file.frames


def resample(mono: np.ndarray, rate: int) -> np.ndarray:
    """Samples (n,) taken at ``rate`` Hz as float32 at 16 kHz (polyphase filter, ``scipy.signal.resample_poly``)."""
    if rate == SAMPLING_RATE:
        return np.ascontiguousarray(mono, dtype=np.float32)
    from scipy.signal import resample_poly

    shared = gcd(rate, SAMPLING_RATE)
    return resample_poly(mono.astype(np.float64), SAMPLING_RATE // shared, rate // shared).astype(np.float32)


@contextmanager
def _opened(content: bytes, name: str) -> Iterator:
    sound = _soundfile()
    if not content:
        raise CorruptDataError(f"{name} is empty (0 bytes). Copy or record it again, or delete its row.")
    try:
        with sound.SoundFile(io.BytesIO(content)) as file:
            yield file
    except (sound.LibsndfileError, RuntimeError) as error:
        raise CorruptDataError(
            f"{name} is not a readable sound file ({error}): cut off, or not WAV, FLAC, Ogg or MP3. "
            "Copy it again or delete its row."
        ) from error


def _soundfile():
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without the library it wraps
        raise TaskError(
            f"speech tasks need the package soundfile, which could not be imported ({error}); run "
            "`pip install soundfile` (on Linux without wheels also the system's libsndfile)."
        ) from error
    return soundfile


def _check_whole(content: bytes, name: str, read: int, promised: int, declared: int | None) -> None:
    again = "Copy it again or delete its row."
    cut = read < promised
    if content[:4] == b"RIFF":
        size = int.from_bytes(content[4:8], "little") + 8
        # a stream writes 0 or the largest number because it cannot know its length
        cut |= len(content) < size < 0xFFFFFFFF
    elif content[:4] == b"OggS":
        cut |= _ogg_is_cut(content)
    if cut:
        raise CorruptDataError(
            f"{name} is truncated: {read:,} samples could be read, its header promises more. {again}"
        )
    if declared is not None and declared != read:
        raise CorruptDataError(f"{name} has {read:,} samples, but its table says {declared:,}. {again}")
    if not read:
        raise CorruptDataError(f"{name} is empty: a header and no samples. {again}")


def _ogg_is_cut(content: bytes) -> bool:
    """Whether the last page lacks the end-of-stream flag or some of its bytes (RFC 3533, section 6)."""
    page = content[content.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4:
        return True
    segments = page[27 : 27 + page[26]]
    return len(page) < 27 + page[26] + sum(segments)


def _check_sound(mono: np.ndarray, rate: int, name: str, silence_ok: bool) -> None:
    if not np.isfinite(mono).all():
        raise CorruptDataError(
            f"{name} has samples that are NaN or infinite (the first at {np.flatnonzero(~np.isfinite(mono))[0]:,}). "
            "Export it again, or delete its row."
        )
    if len(mono) < MIN_SECONDS * rate:
        raise CorruptDataError(
            f"{name} is too short: {len(mono) / rate:.3f} s, at least {MIN_SECONDS} s are needed. Delete its row."
        )
    level = np.abs(mono)
    if not silence_ok and level.max() < SILENCE:
        raise CorruptDataError(
            f"{name} is silent: its loudest sample is {level.max():.1e} of full scale, under {SILENCE:g}. Check the "
            "microphone or the channel and record it again, or delete its row."
        )
    clipped = float((level >= _FULL_SCALE).mean())
    if clipped > CLIPPED:
        raise CorruptDataError(
            f"{name} is clipped: {clipped:.0%} of its samples are at full scale. Record it at a lower level, or delete "
            "its row."
        )
