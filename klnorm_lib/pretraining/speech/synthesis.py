"""Speech from the synthesisers espeak-ng and flite, with the times of its phonemes.

Both are programs of the operating system, needed to pretrain only: ``apt install libespeak-ng1 flite``. espeak-ng
(formants, many languages, GPL-3, which does not reach its output) is called in this process through ``ctypes``;
flite (recorded American and Scottish voices, BSD-like) as a program.
"""

from __future__ import annotations

import ctypes
import io
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

RATE = 16_000
SILENCE = ""
FLITE_VOICES = ("kal16", "awb", "rms", "slt")
INSTALL = "install it (Debian and Ubuntu: apt install libespeak-ng1 flite; macOS: brew install espeak-ng flite)"
_RETRIEVAL, _PHONEME, _IPA_EVENTS, _DO_NOT_EXIT, _UTF8 = 1, 7, 3, 0x8000, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
# ARPAbet of flite to the IPA of espeak-ng's American English, so that both teach the same classes.
_ARPABET = "aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh"
_IPA_NAMES = "ɑ æ ʌ ɔ aʊ ə aɪ b tʃ d ð ɛ ɚ eɪ f ɡ h ɪ i dʒ k l m n ŋ oʊ ɔɪ p ɹ s ʃ t θ ʊ u v w j z ʒ"
_IPA = dict(zip(_ARPABET.split(), _IPA_NAMES.split(), strict=True))


@dataclass(frozen=True)
class Utterance:
    """Mono int16 ``samples`` at 16 kHz, and ``phonemes``: (start in samples, name).

    Names are IPA without stress and length; "" is silence.
    """

    samples: np.ndarray
    phonemes: tuple[tuple[int, str], ...]


class _Name(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """The library espeak-ng; one object a process.

    Raises ``FileNotFoundError`` when the library or its voices are not installed, saying how to install them.
    """

    def __init__(self, library: str = "libespeak-ng.so.1") -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise FileNotFoundError(f"espeak-ng is not installed ({error}); {INSTALL}") from error
        self._rate = self._library.espeak_Initialize(_RETRIEVAL, 0, None, _IPA_EVENTS | _DO_NOT_EXIT)
        if self._rate <= 0:
            raise FileNotFoundError(f"espeak-ng finds no voices (its code is {self._rate}); {INSTALL}")
        self._sound: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        self._callback = _CALLBACK(self._receive)  # kept, or it would be collected while the library holds it
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_Info.restype = ctypes.c_char_p

    def variants(self) -> list[str]:
        """Names of the voice variants (``!v``), sorted: larynx, formants and timbre of a speaker."""
        place = ctypes.c_char_p()
        self._library.espeak_Info(ctypes.byref(place))
        return sorted(file.name for file in (Path(place.value.decode()) / "voices" / "!v").iterdir())

    def say(self, text: str, voice: str, speed: int = 175, pitch: int = 50, pitch_range: int = 50) -> Utterance:
        """``text`` read by ``voice`` (``language+variant``) at ``speed`` words a minute; pitches 0 to 99.

        Raises ``ValueError`` when the synthesiser does not know the voice or returns nothing.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()):  # the voice before would go on speaking
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((_RATE, speed), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._sound.clear()
        self._events.clear()
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._sound:
            raise ValueError(f"espeak-ng returns no sound for {text!r} read by {voice!r}")
        return _trimmed(np.concatenate(self._sound), self._rate, self._events)

    def _receive(self, sound, count, events) -> int:
        if sound and count > 0:
            self._sound.append(np.ctypeslib.as_array(sound, (count,)).copy())
        i = 0
        while events[i].type:
            if events[i].type == _PHONEME:
                raw = ctypes.string_at(ctypes.addressof(events[i].id), 8).split(b"\0")[0]
                self._events.append((events[i].sample, raw.decode(errors="ignore")))
            i += 1
        return 0


def flite(text: str, voice: str, stretch: float = 1.0, pitch: float = 120.0) -> Utterance:
    """``text`` read by flite's ``voice``, durations times ``stretch``, mean pitch in Hz (``kal16`` and the others).

    Raises ``FileNotFoundError`` when flite is not installed, ``ValueError`` when it fails, with what it said.
    """
    program = shutil.which("flite")
    if program is None:
        raise FileNotFoundError(f"flite is not installed; {INSTALL}")
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        settings = ["--setf", f"duration_stretch={stretch}", "--setf", f"int_f0_target_mean={pitch}"]
        command = [program, "-voice", voice, *settings, "-psdur", "-t", text, "-o", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"flite could not read {text!r} with {voice}: {done.stderr.strip()[-200:]}")
        rate, samples = wavfile.read(io.BytesIO(Path(file.name).read_bytes()))
    events, start = [], 0.0
    for name, end in re.findall(r"(\w+):([\d.]+)", done.stdout):
        events.append((round(start * rate), SILENCE if name == "pau" else _IPA.get(name, name)))
        start = float(end)
    return _trimmed(samples, rate, events)


def _trimmed(samples: np.ndarray, rate: int, events: list[tuple[int, str]], margin: float = 0.05) -> Utterance:
    """At 16 kHz, with at most ``margin`` seconds of silence at both ends."""
    events = [(at, re.sub(r"[ˈˌːˑ.ʲ̩̃͡|0-9]|\(.*\)", "", name)) for at, name in events]
    voiced = [i for i, (_, name) in enumerate(events) if name]
    if voiced:
        first = max(0, int(events[voiced[0]][0] - margin * rate))
        after = events[voiced[-1] + 1][0] if voiced[-1] + 1 < len(events) else len(samples)
        samples = samples[first : int(after + margin * rate)]
        events = [(max(0, at - first), name) for at, name in events[voiced[0] : voiced[-1] + 1]]
        events = [(0, SILENCE), *events, (after - first, SILENCE)]
    if rate != RATE:
        divisor = np.gcd(rate, RATE)
        samples = resample_poly(samples.astype(np.float32), RATE // divisor, rate // divisor)
    samples = np.clip(samples, -32768, 32767).astype(np.int16)
    return Utterance(samples, tuple((round(at * RATE / rate), name) for at, name in events))
