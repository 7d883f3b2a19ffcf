"""A run's hash: one function of plain values, the same for a run that starts and for a record that lies in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from klnorm_lib.study.record import Record
from klnorm_lib.study.spec import ELSEWHERE

# `method_args` stand in the method's fields, where a default that is written out is the same run.
OUTSIDE = ("method_args", *ELSEWHERE)
OF_A_METHOD = ("name", "version", "fields")


def hash_of(
    run: Mapping[str, Any],
    method: Mapping[str, Any],
    checksums: Mapping[str, str],
    weights: str | None,
    device: str,
    threads: int,
) -> str:
    """SHA-256 (64 hexadecimal digits) of everything that decides a run's numbers.

    ``run``: the fields of ``Run.to_dict()``, of which those in ``OUTSIDE`` do not count; ``method``: its ``name``,
    ``version`` and ``fields``, other keys do not count; ``checksums``: of every split's rows; ``weights``: the
    encoder's checksum, or its commit on the hub; ``device`` and ``threads``: where and with how many it computes.
    Raises ``KeyError`` for a method without one of its three keys.
    """
    decides = {
        "run": {name: value for name, value in run.items() if name not in OUTSIDE},
        "method": {key: method[key] for key in OF_A_METHOD},
        "data": checksums,
        "weights": weights,
        "device": device,
        "threads": threads,
    }
    canonical = json.dumps(decides, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def hash_of_record(record: Record) -> str:
    """The hash that a record's own contents give; it differs from ``record.hash`` only if the record was edited."""
    return hash_of(
        record.run,
        record.method,
        record.task["checksums"],
        record.encoder["sha256"] or record.encoder["revision"],
        record.hardware["device"],
        record.hardware["threads"],
    )
