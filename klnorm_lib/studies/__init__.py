"""The studies (NAME.yaml) and what was recorded or measured (NAME.jsonl, NAME.json), as the library ships them."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def path(name: str) -> Path:
    """Where the packaged file of that name lies, such as ``text.jsonl``; it need not exist."""
    return HERE / name


def record_files() -> list[Path]:
    """The records files that ship with the library, in order of name."""
    return sorted(HERE.glob("*.jsonl"))


def names() -> list[str]:
    """The studies that ship with the library as YAML files, in order of name."""
    return sorted(file.stem for file in HERE.glob("*.yaml"))
