"""Open what a folder or the hub has, without running any program code that comes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_pretrained(cls: Any, location: str | Path, **options) -> Any:
    """``cls.from_pretrained(location, **options)`` of a transformers class, with code of the checkpoint refused.

    Raises ``ValueError``, without a question on the terminal, when a configuration, model, tokenizer or feature
    extractor can only be opened with Python code that ``auto_map`` names; what transformers has a class for is opened
    with that class.
    """
    try:
        return cls.from_pretrained(location, trust_remote_code=False, **options)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise code_refused(location, cls.__name__) from error


def code_refused(location: str | Path, opener: str) -> ValueError:
    """The error for a checkpoint that ``opener`` cannot open without the Python code that comes with it."""
    return ValueError(
        f"{location} brings Python code of its own (auto_map in its configuration), and {opener} cannot open it "
        "without; code that comes with a checkpoint is never run here: choose a checkpoint of an architecture that "
        "transformers has"
    )


def inside(folder: Path, name: str, named_by: str) -> Path:
    """``folder / name``; raises ``ValueError`` when that is not inside ``folder``: absolute, by ``..`` or a link.

    In the hub's cache the files of a snapshot are links to the ``blobs`` of the same repository, which are inside.
    ``named_by``: the file that contains ``name``, for the error.
    """
    path, place = folder / name, folder.resolve()
    homes = [place, *([place.parents[1] / "blobs"] if place.parent.name == "snapshots" else [])]
    within = any(path.resolve().is_relative_to(home) for home in homes)
    if Path(name).is_absolute() or ".." in Path(name).parts or not within:
        raise ValueError(f"{named_by} names {name!r}, which leads outside {folder}; copy the file into the folder")
    return path
