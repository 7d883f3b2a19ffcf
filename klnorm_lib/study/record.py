"""One run's record: its fields, its data, and its results. The schema is ``record.schema.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from typing import Any

from klnorm_lib.study.errors import RecordError
from klnorm_lib.study.spec import command_of

SCHEMA_VERSION = 1


@cache
def schema() -> dict[str, Any]:
    """The published JSON schema (draft 2020-12) of a record."""
    text = resources.files("klnorm_lib.study").joinpath("record.schema.json").read_text(encoding="utf-8")
    return json.loads(text)


@cache
def _validator():
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema())


def check(values: Any, where: str = "record") -> None:
    """Raises ``RecordError`` naming the first field of ``values`` that the schema does not allow."""
    error = next(iter(sorted(_validator().iter_errors(values), key=lambda e: list(map(str, e.absolute_path)))), None)
    if error is not None:
        path = ".".join(str(part) for part in error.absolute_path) or "the record itself"
        raise RecordError(
            f"{where}: {path}: {error.message[:300]}. A record is written by klnorm_lib.study.run and is not edited by "
            "hand; remove the line, or remake it with its command"
        )


@dataclass
class Record:
    """What one run was and gave; each attribute is a field of the schema.

    ``already_done`` is true when the record was found rather than made; it is not written. ``test["accuracy"]`` reads
    a metric, ``ood[name]`` the metrics of an out-of-domain split, ``command`` the shell command that remakes it.
    """

    hash: str
    status: str
    created: str
    run: dict[str, Any]
    task: dict[str, Any]
    encoder: dict[str, Any]
    method: dict[str, Any]
    versions: dict[str, str]
    hardware: dict[str, Any]
    rows: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, int] | None = None
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    selected: dict[str, Any] | None = None
    train: dict[str, float | None] = field(default_factory=dict)
    validation: dict[str, float | None] = field(default_factory=dict)
    test: dict[str, float | None] = field(default_factory=dict)
    ood: dict[str, dict[str, float | None]] = field(default_factory=dict)
    gap: dict[str, float | None] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=lambda: {"test": {}, "ood": {}})
    time: dict[str, float | None] = field(default_factory=lambda: {"train_seconds": None, "total_seconds": None})
    memory: dict[str, Any] = field(default_factory=lambda: {"peak_bytes": None, "what": "not measured"})
    error: dict[str, Any] | None = None
    study: dict[str, Any] | None = None
    row_scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    already_done: bool = field(default=False, compare=False)

    @property
    def command(self) -> str:
        """The shell command that remakes this record."""
        return command_of(self.run)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values, without ``already_done``."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "already_done"}

    def to_line(self) -> str:
        """The record as one line of JSON, checked; raises ``RecordError``."""
        values = self.to_dict()
        check(values, f"record {self.hash[:12]}")
        return json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "record") -> Record:
        """A record from JSON values, checked; ``where`` names their origin in the ``RecordError``."""
        check(values, where)
        return cls(**values)
