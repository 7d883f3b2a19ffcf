"""Decoded sound files, kept in a folder so that they are decoded and resampled once.

The folder is ``KLNORM_CACHE`` if that is set, else ``klnorm`` in the user's cache folder; it can be deleted any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .audio import SAMPLING_RATE

VARIABLE = "KLNORM_CACHE"
_VERSION = 2  # raise it whenever the same file would give other samples, or none


def folder() -> Path:
    """Where decoded audio is kept."""
    named = os.environ.get(VARIABLE, "").strip()
    if named:
        return Path(named).expanduser() / "audio"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "klnorm" / "audio"


def entry(sha256: str, checked: str = "") -> Path:
    """The file that holds the decoded form of a sound file with this SHA-256, and with these checks behind it."""
    return folder() / sha256[:2] / f"{sha256}-{SAMPLING_RATE}{checked}-{_VERSION}.safetensors"


def decoded(sha256: str, decode: Callable[[], tuple[np.ndarray, str]], checked: str = "") -> tuple[np.ndarray, str]:
    """What ``decode()`` gives for the sound file with this SHA-256, from the cache if it is there and whole.

    ``checked`` tells apart decodings that let pass what others do not. A damaged entry is made again; an entry appears
    under its name only when it is complete. A folder that cannot be written to is no error: then nothing is kept.
    """
    path = entry(sha256, checked)
    kept = _read(path)
    if kept is not None:
        return kept
    made = decode()
    with contextlib.suppress(OSError):
        _write(path, *made)
    return made


def _read(path: Path) -> tuple[np.ndarray, str] | None:
    from safetensors import safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            facts, samples = file.metadata(), file.get_tensor("audio")
        whole = facts["stored"] == _sum(samples) and samples.dtype == np.float32 and samples.ndim == 1
        return (samples, facts["recorded"]) if whole else None
    except Exception:  # whatever is wrong with it, it is made again
        return None


def _write(path: Path, samples: np.ndarray, recorded: str) -> None:
    from safetensors.numpy import save

    path.parent.mkdir(parents=True, exist_ok=True)
    content = save({"audio": samples}, metadata={"recorded": recorded, "stored": _sum(samples)})
    # several processes may write one entry: each writes a file of its own, and the last rename wins
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _sum(samples: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(samples).tobytes()).hexdigest()
