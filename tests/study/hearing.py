"""A small random encoder of sound, and a file that lists recordings."""

from __future__ import annotations

from pathlib import Path

from transformers import Wav2Vec2FeatureExtractor

from klnorm_lib.study import Run
from tests import zoo
from tests.tasks import sounds


def encoder(folder: Path, norm: str = "layer", **extractor) -> Path:
    """Writes a random two-layer wav2vec 2.0 of width 32 and its feature extractor to ``folder``."""
    zoo.build("wav2vec2", kind="encoder", feat_extract_norm=norm).save_pretrained(folder)
    options = {"feature_size": 1, "sampling_rate": 16000, "padding_value": 0.0, "do_normalize": True}
    Wav2Vec2FeatureExtractor(**{**options, "return_attention_mask": True, **extractor}).save_pretrained(folder)
    return folder


def table(folder: Path, rows: int = 60) -> Path:
    """Writes low and high tones of 0.1 to 0.2 s, and ``clips.csv`` that lists them with their verdict."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,verdict"]
    for i in range(rows):
        content = sounds.encoded(sounds.tone(i + 300 * (i % 2), seconds=0.1 + 0.01 * (i % 11)), form="WAV")
        (folder / f"{i:02}.wav").write_bytes(content)
        lines.append(f"{i:02}.wav,{('low', 'high')[i % 2]}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder / "clips.csv"


def run(encoder: Path, data: Path, **fields) -> Run:
    """A run of four steps on a file made by :func:`table`."""
    defaults = {"steps": 4, "evaluations": 2, "batch_size": 8, "device": "cpu", "learning_rate": 1e-3}
    return Run(None, str(encoder), data=str(data), audio="path", label="verdict", **{**defaults, **fields})
