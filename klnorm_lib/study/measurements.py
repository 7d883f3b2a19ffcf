"""Packaged measurements (studies/NAME.json): read, and checked against their schema (studies/NAME.schema.json)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from klnorm_lib import studies


def packaged(name: str) -> dict[str, Any]:
    """The packaged measurement of that name, as it stands in its file."""
    return _json(f"{name}.json")


def fit_schema(values: Any, name: str, maker: str) -> None:
    """Raise ``ValueError`` naming where ``values`` do not fit the schema; ``maker``: what writes the file."""
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(_json(f"{name}.schema.json")).iter_errors(values), key=lambda e: list(e.path))
    if errors:
        where = ".".join(map(str, errors[0].absolute_path)) or "the measurement itself"
        raise ValueError(f"{where}: {errors[0].message[:200]}; it is written by {maker} and not edited by hand")


def pair_rounds(model: Mapping[str, Any], name: str) -> None:
    """Raise ``ValueError`` unless all arms of a timed model have equally many rounds, by both clocks."""
    lengths = {len(arm[clock]) for arm in model["arms"].values() for clock in ("cpu_seconds", "wall_seconds")}
    if len(lengths) > 1:
        raise ValueError(f"{name}: arms have {sorted(lengths)} rounds, but rounds are paired")


def _json(file: str) -> Any:
    return json.loads(studies.path(file).read_text(encoding="utf-8"))
