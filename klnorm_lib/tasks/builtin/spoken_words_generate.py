"""The built-in task spoken_words: ten short English words, spoken by the synthesiser espeak-ng.

``python -m klnorm_lib.tasks.builtin.spoken_words_generate FOLDER`` writes ``audio/*.flac``, a table and info.json.
It needs espeak-ng on the path (Debian: the package espeak-ng) and soundfile. Every recording has a random generator of
its own, seeded by its voice and word, so that one alone can be made again from its line of metadata.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import signal

RATE = 16_000
ESPEAK = "1.51"
# Neighbours differ in one sound (yes, yet; left, lift; top, stop) or only in the order of their sounds (left, felt;
# ten, net; top, pot), which features averaged over time can hardly tell.
WORDS = ("yes", "yet", "left", "lift", "felt", "ten", "net", "top", "pot", "stop")

# A voice is an accent and one of espeak-ng's speakers ("variants"): en+m1. No speaker is in two of train, validation
# and test. The accent `en` is British; `en-gb` would silently ignore the speaker, and `en-us-nyc` sounds like `en-us`.
SPEAKERS = {
    "train": "m1 m3 m5 m7 f1 f3 Alex Andy Annie Denis Gene Jacky Michael Lee adam anika belinda boris ed grandma "
    "klatt2 linda pablo quincy",
    "validation": "m8 f4 Mario Alicia",
    "test": "m2 f2 Diogo Andrea m4 f5 david aunty Nguyen shelby Hugo edward klatt4 max paul travis",
}
ACCENTS = ("en-gb-scotland", "en-029", "en-gb-x-gbcwmd", "de", "nl", "it", "es", "pl", "fi", "id")
NOISES = ("babble", "rumble", "telephone")  # other voices talking; 1/f^2 noise; 300 to 3400 Hz and hiss
OOD_SNR = {"babble": 5.0, "rumble": -5.0, "telephone": 15.0}
BABBLE = "The old man and his daughter walked along the river until they came to a small wooden bridge near the mill"


@dataclass(frozen=True)
class Row:
    """How one recording is made; ``snr_db`` is the mean power of the word over that of the noise."""

    file_name: str
    label: int
    split: str
    word: str
    voice: str
    accent: str
    pitch: int
    speed: int
    gain_db: float
    noise: str
    snr_db: float


def rows() -> list[Row]:
    """Every recording of the set, in the order of its metadata."""
    found = []
    for split, speakers in SPEAKERS.items():
        for i, speaker in enumerate(speakers.split()):
            found += [_row(split, ("en", "en-us")[i % 2], speaker, word) for word in WORDS]
    test = SPEAKERS["test"].split()
    for accent, speaker in zip(ACCENTS, test, strict=False):
        found += [_row("ood_accent", accent, speaker, word) for word in WORDS]
    for i, speaker in enumerate(test[:12]):
        noise = NOISES[i // 2 % len(NOISES)]  # each noise with both accents
        found += [_row("ood_noise", ("en", "en-us")[i % 2], speaker, word, noise) for word in WORDS]
    return found


def _row(split: str, accent: str, speaker: str, word: str, noise: str = "pink") -> Row:
    """Pitch, speed and gain depend on voice and word only: ood_noise repeats recordings of test, but for the noise."""
    voice = f"{accent}+{speaker}"
    rng = _generator(voice, word)
    pitch, speed = int(rng.integers(25, 76)), int(rng.integers(145, 216))
    gain, snr = round(float(rng.uniform(-12, 0)), 1), round(float(rng.uniform(15, 35)), 1)
    return Row(
        file_name=f"audio/{split}_{word}_{accent}_{speaker}.flac",
        label=WORDS.index(word),
        split=split,
        word=word,
        voice=voice,
        accent=accent,
        pitch=pitch,
        speed=speed,
        gain_db=gain,
        noise=noise,
        snr_db=OOD_SNR.get(noise, snr),
    )


def _generator(*names: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(" ".join(names).encode()).digest()[:8]))


@cache
def espeak_version() -> str | None:
    """Version of the espeak-ng on the path, ``None`` if there is none."""
    if shutil.which("espeak-ng") is None:
        return None
    printed = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True).stdout
    return printed.split("text-to-speech: ")[1].split()[0]


def speak(text: str, voice: str, pitch: int, speed: int) -> np.ndarray:
    """Samples at 16 kHz of a text spoken by espeak-ng, float64 within -1 and 1, silence at both ends cut off.

    Raises ``RuntimeError`` when there is no espeak-ng, and ``ValueError`` for a voice that it does not have.
    """
    import soundfile

    if espeak_version() is None:
        raise RuntimeError("espeak-ng is not on the path; install it (Debian: apt-get install espeak-ng)")
    # Half the default amplitude: at the default, some speakers are clipped by the synthesiser.
    command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "-a", "50", "-z", "--stdout", text]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise ValueError(f"espeak-ng cannot speak as {voice!r}: {done.stderr.decode(errors='replace').strip()}")
    wave, rate = soundfile.read(io.BytesIO(done.stdout))
    wave = signal.resample_poly(wave, RATE // 50, rate // 50)
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
    return wave[loud[0] : loud[-1] + 1]


def record(row: Row) -> np.ndarray:
    """The recording of a row as int16 samples: the word, up to 60 ms before and after it, noise, and a peak level."""
    rng = _generator(row.voice, row.word, "recording")
    word = speak(row.word, row.voice, row.pitch, row.speed)
    before, after = rng.integers(RATE // 50, 3 * RATE // 50, 2)
    clean = np.pad(word, (before, after))
    if row.noise == "telephone":
        band = signal.butter(4, (300, 3400), "bandpass", fs=RATE, output="sos")
        clean = signal.sosfilt(band, clean)
    noise = _noise(row.noise, len(clean), rng)
    power = np.mean(clean[before : before + len(word)] ** 2)
    noise *= np.sqrt(power / np.mean(noise**2) / 10 ** (row.snr_db / 10))
    mixed = clean + noise
    mixed *= 0.5 * 10 ** (row.gain_db / 20) / np.abs(mixed).max()
    return np.round(mixed * 32768).astype(np.int16)


def _noise(kind: str, length: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "babble":
        talk = _babble()
        start = rng.integers(0, len(talk) - length)
        return talk[start : start + length].copy()
    slope = {"pink": 1.0, "rumble": 2.0, "telephone": 0.0}[kind]
    frequency = np.fft.rfftfreq(length, 1 / RATE)
    spectrum = np.fft.rfft(rng.standard_normal(length))
    # Power falls with frequency to the slope, from 50 Hz on; below there is none.
    weight = np.where(frequency >= 50, np.maximum(frequency, 50) ** (-slope / 2), 0.0)
    return np.fft.irfft(spectrum * weight, length)


@cache
def _babble() -> np.ndarray:
    """Six speakers of train at once, each beginning at another word."""
    words = BABBLE.split()
    talk = []
    for i, speaker in enumerate(SPEAKERS["train"].split()[:12:2]):
        text = " ".join(words[3 * i :] + words[: 3 * i])
        wave = speak(text, f"en+{speaker}", 50, 160)
        talk.append(wave / wave.std())
    return sum(wave[: min(map(len, talk))] for wave in talk)


def write(folder: Path) -> None:
    """The whole set, in the layout of a mirror; raises ``FileExistsError`` if the folder exists."""
    import pandas as pd
    import soundfile

    (folder / "audio").mkdir(parents=True)
    table = []
    for row in rows():
        samples = record(row)
        path = folder / row.file_name
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        sum_ = hashlib.sha256(path.read_bytes()).hexdigest()
        table.append({**asdict(row), "sample_rate": RATE, "n_samples": len(samples), "sha256": sum_})
    metadata = pd.DataFrame(table)
    metadata.to_parquet(folder / "metadata.parquet", index=False, compression="zstd")
    (folder / "info.json").write_text(json.dumps(_info(folder, metadata), indent=1, ensure_ascii=False) + "\n")


def _info(folder: Path, metadata) -> dict:
    splits = {}
    for split, part in metadata.groupby("split", sort=False):
        lines = "".join(f"{s}  {f}\n" for s, f in zip(part["sha256"], part["file_name"], strict=True))
        splits[split] = {"rows": len(part), "sha256": hashlib.sha256(lines.encode()).hexdigest()}
    return {
        "task": "spoken_words",
        "kind": "audio-classification",
        "text_columns": [],
        "audio_column": "file_name",
        "label_column": "label",
        "label_names": list(WORDS),
        "columns": list(metadata.columns),
        "metadata": {
            "file": "metadata.parquet",
            "rows": len(metadata),
            "sha256": hashlib.sha256((folder / "metadata.parquet").read_bytes()).hexdigest(),
        },
        "splits": splits,
        "hub": {"id": None, "config": None, "revision": None},
        "licence": "Apache-2.0 (generated by this library)",
        "source": f"klnorm_lib.tasks.builtin.spoken_words_generate with espeak-ng {espeak_version()}",
        "caveats": [
            "Synthetic speech: made to show a mechanism without a network, not to rank methods on human speech. An "
            "encoder pretrained on the same synthesiser is at home here.",
            "No speaker of train is in validation, test or an out-of-domain set.",
            "ood_accent: speakers of test in other accents, among them voices of other languages that read English "
            "words by their own rules.",
            "ood_noise: recordings of test with babble at 5 dB, rumble at -5 dB, or a telephone's band with hiss at 15 "
            "dB; all other rows have pink noise at 15 to 35 dB.",
            "Three pairs of words hold the same sounds in another order: spectra averaged over time hardly tell them.",
        ],
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m klnorm_lib.tasks.builtin.spoken_words_generate FOLDER (which must not exist)")
    if espeak_version() != ESPEAK:
        sys.exit(f"the set is made with espeak-ng {ESPEAK}; found {espeak_version() or 'none'}")
    write(Path(sys.argv[1]))
