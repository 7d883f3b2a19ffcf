"""Sounds to listen to, in a notebook and in the page made from it, without any file beside them."""

from __future__ import annotations

import html
from collections.abc import Mapping

import numpy as np

_GRID = "display:grid; grid-template-columns:repeat(auto-fill, minmax(10.5rem, 1fr)); gap:0.5rem 1rem; margin:0.5rem 0"
_LABEL = "display:block; font-size:0.85rem; margin-bottom:0.15rem"


class Players(dict):
    """Labels and samples: a dict that shows itself in a notebook as one small audio player for each sound."""

    def __init__(self, sounds: Mapping[str, np.ndarray], rate: int) -> None:
        super().__init__(sounds)
        self.rate = rate

    def __repr__(self) -> str:
        return "\n".join(f"{label}: {len(wave) / self.rate:.2f} s" for label, wave in self.items())

    def _repr_html_(self) -> str:
        from IPython.display import Audio

        parts = []
        for label, wave in self.items():
            name = html.escape(label)
            # As they are: IPython would otherwise make the loudest sample of every sound equally loud.
            source = Audio(wave, rate=self.rate, normalize=False).src_attr()
            plain = "controls controlslist='nodownload noplaybackrate' preload='auto' style='width:100%'"
            player = f"<audio {plain} aria-label='{name}' src='{source}'></audio>"
            parts.append(f"<div><span style='{_LABEL}'>{name}</span>{player}</div>")
        return f"<div class='players' style='{_GRID}'>{''.join(parts)}</div>"


def players(sounds: Mapping[str, np.ndarray], rate: int = 16_000) -> Players:
    """A grid of audio players, one for each label; samples (n,) within -1 and 1, played at ``rate`` Hz and as loud as
    they are.

    The sounds are part of the page (16 bit, about 44 kB a second at 16 kHz), so keep them short. Raises ``ValueError``
    for a sound that is empty, not one row, not finite, or beyond -1 and 1.
    """
    waves = {}
    for label, samples in sounds.items():
        wave = np.asarray(samples, dtype=np.float64)
        if wave.ndim != 1 or not len(wave) or not np.isfinite(wave).all() or np.abs(wave).max() > 1:
            raise ValueError(
                f"{label!r} is not a sound that can be played: one row of finite samples within -1 and 1 is needed, "
                f"got shape {wave.shape}" + (f", largest {np.abs(wave).max():.3g}" if wave.size else "")
            )
        waves[label] = wave
    return Players(waves, rate)
