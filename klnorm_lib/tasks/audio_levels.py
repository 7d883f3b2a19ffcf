"""Whether samples are a sound: finite, long enough, not silent, not clipped, in scale."""

from __future__ import annotations

import numpy as np

from .errors import CorruptDataError

MIN_SECONDS = 0.05  # twice the 25 ms that the first layers of a wav2vec-style encoder look at
SILENCE = 1e-3  # peak; -60 dB of full scale
CLIPPED = 0.25  # share of samples at full scale
LOUDEST = 64.0  # of a float file, in full scales; +36 dB
_FULL_SCALE = {"PCM_U8": 0.992, "PCM_S8": 0.992, "ULAW": 0.98, "ALAW": 0.984}  # largest sample of a coarse code
_WIDTHS = (7, 15, 23, 31)  # bits of a whole number beside its sign


def check_sound(wave: np.ndarray, rate: int, code: str, name: str, silence_ok: bool, if_silent: str = "") -> None:
    """Raise ``CorruptDataError`` for samples (n, channels) that are no sound, saying what is wrong with ``name``.

    ``code``: libsndfile's name of how a sample is written ("PCM_16", "FLOAT", ...). Files of floats may exceed full
    scale, which is 1, and are never clipped; files whose floats are whole numbers of another scale are refused. A
    constant offset is not a sound. ``silence_ok`` lets a silent one pass; ``if_silent`` ends the error about it.
    """
    if not np.isfinite(wave).all():
        first = np.flatnonzero(~np.isfinite(wave).all(axis=1))[0]
        raise CorruptDataError(
            f"{name} has samples that are NaN or infinite (the first at {first:,}). Export it again, or delete its row."
        )
    mono = wave.mean(axis=1, dtype=np.float64)
    if len(mono) < MIN_SECONDS * rate:
        raise CorruptDataError(
            f"{name} is too short: {len(mono) / rate:.3f} s, at least {MIN_SECONDS} s are needed. Delete its row."
        )
    floats = code in ("FLOAT", "DOUBLE")
    if floats:
        _check_scale(wave, name)
    if not silence_ok:
        _check_loud_enough(wave, mono, name, if_silent)
    clipped = 0.0 if floats else float((np.abs(mono) >= _FULL_SCALE.get(code, 0.999)).mean())
    if clipped > CLIPPED:
        raise CorruptDataError(
            f"{name} is clipped: {clipped:.0%} of its samples are at full scale. Record it at a lower level, or delete "
            "its row."
        )


def _check_scale(wave: np.ndarray, name: str) -> None:
    peak = float(np.abs(wave).max())
    if peak > LOUDEST or (peak > 1 and not (wave % 1).any()):
        bits = next((bits for bits in _WIDTHS if peak <= 2**bits), None)
        scale = f"look like {bits + 1}-bit whole numbers: divide them by {2**bits:,}" if bits else "have another scale"
        raise CorruptDataError(
            f"{name} is out of scale: full scale of a file of floats is 1, and its samples go up to {peak:,.6g}. They "
            f"{scale}, and write the file again."
        )


def _check_loud_enough(wave: np.ndarray, mono: np.ndarray, name: str, if_silent: str) -> None:
    offset = float(mono.mean())
    peak, loudest_channel = float(np.abs(mono - offset).max()), float(np.abs(wave - wave.mean(axis=0)).max())
    if peak >= SILENCE:
        return
    if loudest_channel >= SILENCE:
        raise CorruptDataError(
            f"{name} is silent once its {wave.shape[1]} channels are averaged: they cancel, each the negative of the "
            "other. Export one channel, or turn the sign of one, and write the file again."
        )
    beside = f" beside a constant offset of {offset:.2g}" if abs(offset) >= SILENCE else ""
    raise CorruptDataError(
        f"{name} is silent: its loudest sample is {peak:.1e} of full scale{beside}, under {SILENCE:g}. Check the "
        f"microphone or the channel and record it again, or delete its row{if_silent}."
    )
