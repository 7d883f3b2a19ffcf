"""A study made up for tests: real records in form, with scores that a test can work out by hand."""

from __future__ import annotations

import copy
import hashlib

import numpy as np

from klnorm_lib import studies
from klnorm_lib.study import Record, read_records, rows

LABELS = {
    "plain": "plain",
    "layernorm": "LayerNorm",
    "klnorm_b": "KL-Norm B",
    "vib": "VIB",
    "frozen": "frozen features",
}
METHODS = {"layernorm": "norm_head", "klnorm_b": "klnorm"}


def _base() -> Record:
    return next(r for r in read_records(studies.path("few_labels.jsonl")) if r.status == "finished")


BASE = _base()


def record(arm, draw, score, task="trec", size=200, study="text", stage="final", encoder="e", **more) -> Record:
    """A finished record of an arm; ``more``: ood scores, seconds, added, rows (0 or 1 each), trial, trials, part."""
    r = copy.deepcopy(BASE)
    r.run |= {"task": task, "size": size, "split_seed": draw, "seed": draw, "encoder": encoder}
    r.run |= {"method": METHODS.get(arm, arm), "method_args": {}, "learning_rate": more.get("rate", 1e-3)}
    r.task = {**r.task, "name": task}
    r.encoder = {**r.encoder, "name": encoder}
    r.method = {**r.method, "name": METHODS.get(arm, arm), "added_parameters": more.get("added", 0)}
    r.test = {"accuracy": score}
    r.ood = {name: {"accuracy": value} for name, value in more.get("ood", {}).items()}
    r.calibration = {"test": {}, "ood": {}}
    r.time = {"train_seconds": more.get("seconds", 5.0), "total_seconds": more.get("seconds", 5.0)}
    r.row_scores = {"test": rows.encode("accuracy", np.array(more["rows"]))} if "rows" in more else {}
    told = {"name": study, "part": more.get("part", "headline"), "arm": arm, "label": LABELS.get(arm, arm)}
    r.study = told | {
        "stage": stage,
        "trial": more.get("trial", {"learning_rate": 1e-3}),
        "trials": more.get("trials", 4),
    }
    r.hash = hashlib.sha256(repr((sorted(r.run.items(), key=str), score)).encode()).hexdigest()
    return r


def failed(arm, draw, **more) -> Record:
    """The same, failed."""
    r = record(arm, draw, 0.0, **more)
    r.status, r.test, r.error = "failed", {}, {"type": "NotFiniteError", "message": "the loss is nan\nso", "step": 3}
    return r


PLAIN = {"trec": (0.50, 0.52, 0.54), "sst2": (0.70, 0.70, 0.73)}
GAINS = {"layernorm": (0.00, 0.01, -0.01), "klnorm_b": (0.03, 0.04, 0.05), "vib": (-0.10, -0.11, -0.12)}
SECONDS = {"plain": 5.0, "layernorm": 5.5, "klnorm_b": 6.0, "vib": 7.5}
ADDED = {"layernorm": 512, "klnorm_b": 25_000, "vib": 280_000}


def study() -> list[Record]:
    """Four arms on two tasks, three replicates each, with a shift, two tuning runs and a run that failed."""
    made = []
    for task, scores in PLAIN.items():
        for arm in ("plain", *GAINS):
            for draw, score in enumerate(scores):
                more = {"seconds": SECONDS[arm], "added": ADDED.get(arm, 0), "ood": {"far": score - 0.2}}
                made.append(record(arm, draw, score + GAINS.get(arm, (0, 0, 0))[draw], task, **more))
    made += [record("klnorm_b", 100, 0.9, stage="tuning"), record("klnorm_b", 101, 0.1, stage="tuning")]
    return [*made, failed("vib", 3)]
