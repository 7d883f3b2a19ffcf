"""What every source hands over, and the parts of a task that a source has to find."""

from __future__ import annotations

from dataclasses import dataclass, field

from .rows import Rows


@dataclass
class Found:
    """A task as one source has it: whole training and test rows, and the out-of-domain sets that the source has.

    ``origins`` are unrevised originals of out-of-domain rows, which must not be trained on; ``missing`` says why an
    out-of-domain set is not here; ``files`` are checksums of files read; ``max_size`` a cap that the data ask for;
    ``validation`` the rows that validation is drawn from, ``None`` if it is carved from the training rows.
    """

    id: str
    revision: str | None
    train: Rows
    test: Rows
    ood: dict[str, Rows] = field(default_factory=dict)
    ood_ids: dict[str, dict[str, str | None]] = field(default_factory=dict)
    origins: list[Rows] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    unlabelled: int = 0
    max_size: int | None = None
    validation: Rows | None = None
