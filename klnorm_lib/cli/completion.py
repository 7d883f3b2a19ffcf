"""What the shell completes: names of tasks, methods, encoders and studies, known without importing torch.

A key press is to be answered at once, so the names of encoders are read from their folders; tests hold them equal to
what ``klnorm encoders`` lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import klnorm_lib
from klnorm_lib.studies import names as names_of_studies

HERE = Path(klnorm_lib.__file__).parent


def task(incomplete: str) -> list[str]:
    """Names of tasks that begin so."""
    from klnorm_lib import tasks

    return _starting(incomplete, tasks.names())


def method(incomplete: str) -> list[str]:
    """Names of methods and baselines that begin so, those that other packages register included."""
    from klnorm_lib.study import stated

    return _starting(incomplete, stated.names())


def encoder(incomplete: str) -> list[str]:
    """Names of encoders that begin so: built-in ones and those of the mirror folders."""
    built_in = (path.parent.name for path in (HERE / "encoders").glob("*/config.json"))
    return _starting(incomplete, [*built_in, *mirrored()])


def study(incomplete: str) -> list[str]:
    """Names of packaged studies that begin so."""
    return _starting(incomplete, names_of_studies())


def mirrored() -> list[str]:
    """Encoders in the folders that ``KLNORM_MIRROR`` names."""
    roots = [Path(part).expanduser() for part in os.environ.get("KLNORM_MIRROR", "").split(os.pathsep) if part]
    found = [path for root in roots for path in sorted((root / "models").glob("*")) if (path / "config.json").is_file()]
    return [path.name.replace("--", "/", 1) for path in found]


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})
