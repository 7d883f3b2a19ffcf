"""From the bytes of a sound file to samples: mono, 16 kHz, float32, with every check a bad file must not pass."""

from __future__ import annotations

import hashlib
import io
from math import gcd

import numpy as np

from . import audio_flac, audio_mpeg, audio_riff
from .audio_containers import check_whole
from .audio_levels import check_sound
from .errors import CorruptDataError, TaskError

SAMPLING_RATE = 16_000
RATES = (1_000, 768_000)  # Hz; a header with another has lost its bytes
LARGEST = 2**31  # bytes
_FORMATS = {"WAV", "WAVEX", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "NIST"}  # whose wholeness is checked
_UNTAGGED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"fLaC", b"OggS", b"FORM")  # read wrongly behind tags of an MP3
_LOSSY = ("VORBIS", "OPUS", "MPEG")
_BLOCK = 1 << 20  # samples read at a time, so that a header's number never decides how much memory is taken


def decode(
    content: bytes,
    name: str,
    rate: int | None = None,
    samples: int | None = None,
    silence_ok: bool = False,
    if_silent: str = "",
) -> tuple[np.ndarray, str]:
    """Samples of a sound file as float32 at 16 kHz, channels averaged, and a SHA-256 of what was recorded.

    ``content``: a file that libsndfile reads (WAV, FLAC, Ogg, MP3, AIFF, AU, CAF, NIST); ``name`` is named in errors;
    ``rate`` (Hz) and ``samples`` (per channel) are what a table beside the file declares. Resampling is polyphase
    (Kaiser window). Lengths that a pipe or an interrupted recorder left open are those of the samples that are there;
    float files are read as they are, also above full scale. The sum is over the samples before resampling, so that WAV
    and FLAC of one recording agree; a lossy file, whose samples depend on the decoder, has the sum of its bytes.
    Raises ``CorruptDataError`` for a file that is empty, unreadable, cut off, silent (unless ``silence_ok``;
    ``if_silent`` is added to that error), clipped, out of scale, too short, not finite, or not as declared.
    """
    wave, found, code = _read(content, name)
    if samples is not None and samples != len(wave):
        raise CorruptDataError(f"{name} has {len(wave):,} samples, but its table says {samples:,}. {_AGAIN}")
    if not len(wave):
        raise CorruptDataError(f"{name} is empty: a header and no samples. {_AGAIN}")
    if rate is not None and rate != found:
        raise CorruptDataError(
            f"{name} is sampled at {found:,} Hz, but its table says {rate:,} Hz. Correct the table, or copy the file "
            "again: at the wrong rate it would play too fast or too slow."
        )
    check_sound(wave, found, code, name, silence_ok, if_silent)
    mono = wave[:, 0] if wave.shape[1] == 1 else wave.mean(axis=1, dtype=np.float32)
    native = content if code.startswith(_LOSSY) else f"{found}\n".encode() + mono.astype("<f4").tobytes()
    return resample(mono, found), hashlib.sha256(native).hexdigest()


def describe(content: bytes, name: str) -> tuple[int, int]:
    """Sampling rate (Hz) and samples per channel of a sound file; raises as ``decode`` for one that is not whole."""
    wave, rate, _ = _read(content, name)
    return rate, len(wave)


def resample(mono: np.ndarray, rate: int) -> np.ndarray:
    """Samples (n,) taken at ``rate`` Hz as float32 at 16 kHz (polyphase filter, ``scipy.signal.resample_poly``)."""
    if rate == SAMPLING_RATE:
        return np.ascontiguousarray(mono, dtype=np.float32)
    from scipy.signal import resample_poly

    shared = gcd(rate, SAMPLING_RATE)
    return resample_poly(mono.astype(np.float64), SAMPLING_RATE // shared, rate // shared).astype(np.float32)


_AGAIN = "Copy it again or delete its row."


def _read(content: bytes, name: str) -> tuple[np.ndarray, int, str]:
    """All samples (n, channels) of a sound file, their rate (Hz), and libsndfile's name of their code."""
    sound = _soundfile()
    if not content:
        raise CorruptDataError(f"{name} is empty (0 bytes). Copy or record it again, or delete its row.")
    if len(content) >= LARGEST:
        raise CorruptDataError(f"{name} has {len(content) / 2**30:.1f} GiB; cut it into clips of less than 2 GiB.")
    tagged = audio_mpeg.after_tag(content)
    plain = content[tagged:] if content[tagged : tagged + 4] in _UNTAGGED else content
    check_whole(plain, name)
    plain, declared = audio_riff.canonical(plain, name)
    plain = audio_flac.counted(audio_mpeg.counted(plain, name))
    try:
        with sound.SoundFile(io.BytesIO(plain)) as file:
            rate, code, form, promised = file.samplerate, file.subtype, file.format, file.frames
            blocks = [file.read(_BLOCK, dtype="float32", always_2d=True)]
            while len(blocks[-1]) == _BLOCK:
                blocks.append(file.read(_BLOCK, dtype="float32", always_2d=True))
    except Exception as error:  # the sound library and the one below it raise many unrelated classes
        raise CorruptDataError(
            f"{name} is not a readable sound file ({getattr(error, 'error_string', error)}): cut off, in a code that "
            f"libsndfile does not know, or not WAV, FLAC, Ogg, MP3 or AIFF. {_AGAIN}"
        ) from error
    wave = np.concatenate(blocks)
    if form not in _FORMATS:
        raise CorruptDataError(f"{name} is a {form} file, of which parts may lack unseen; convert it to WAV or FLAC.")
    if len(wave) < promised:
        raise CorruptDataError(
            f"{name} is truncated: {len(wave):,} samples could be read, its header promises {promised:,}. {_AGAIN}"
        )
    if not RATES[0] <= rate <= RATES[1]:
        raise CorruptDataError(
            f"{name} is sampled at {rate:,} Hz by its header; sound has {RATES[0]:,} to {RATES[1]:,} Hz. {_AGAIN}"
        )
    return _without_filling(wave, declared, code), rate, code


def _without_filling(wave: np.ndarray, declared: int | None, code: str) -> np.ndarray:
    """The samples less those that fill the last block of a block code, where the file says how many it holds."""
    longest = 0 if code.startswith(("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")) else 4096  # samples of one block
    filled = declared is not None and 0 < declared < len(wave) <= declared + longest
    return wave[:declared] if filled else wave


def _soundfile():
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without the library it wraps
        raise TaskError(
            f"speech tasks need the package soundfile, which could not be imported ({error}); run "
            "`pip install soundfile` (on Linux without wheels also the system's libsndfile)."
        ) from error
    return soundfile
