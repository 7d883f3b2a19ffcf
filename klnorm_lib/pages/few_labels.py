"""The runs of the chapter on few labels: ``python -m klnorm_lib.pages.few_labels --jobs N``.

Everything is fixed before the first run but the learning rate, which its own runs decide, on validation rows. Runs that
the file holds already are not done again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from klnorm_lib import studies
from klnorm_lib.pages.card_study import study
from klnorm_lib.study import Record, Run, read_records
from klnorm_lib.study.stats import best_rate

SIZES = (50, 100, 200, 500)
SUBSETS = range(5)  # split seeds of the crossed runs
SEEDS = range(4)  # model seeds of the crossed runs
PAIRS = range(10, 20)  # split seeds of the paired runs
TRIALS = range(20, 23)  # split seeds of the runs that decide the learning rate
RATES = (3e-4, 1e-3, 3e-3)
PAIRED_SIZE, TRIAL_SIZE = 100, 200
FILE = studies.path("few_labels.jsonl")


def _run(encoder: str, steps: int, size: int, split_seed: int, seed: int, **fields) -> Run:
    where = {"size": size, "split_seed": split_seed, "seed": seed, "device": "cpu", "max_length": 64}
    if fields.get("method") == "frozen":
        return Run("trec", encoder, **where, **fields)
    return Run("trec", encoder, **where, steps=steps, batch_size=16, warmup_ratio=0.1, evaluations=1, **fields)


def trials(encoder: str = "klnorm-nano", steps: int = 100) -> list[Run]:
    """The runs that decide the learning rate: every rate on subsets that are used for nothing else."""
    return [_run(encoder, steps, TRIAL_SIZE, s, s, learning_rate=rate) for s, rate in product(TRIALS, RATES)]


def chosen_rate(records: Iterable[Record]) -> float:
    """The learning rate with the best mean validation score among the finished trials; test scores play no part."""
    return best_rate(r for r in records if r.status == "finished" and r.run["split_seed"] in TRIALS)[1]


def runs(rate: float, encoder: str = "klnorm-nano", steps: int = 100) -> list[Run]:
    """All other runs: subsets and seeds crossed at every size, then fine-tuning beside frozen features, paired.

    The last weights are kept: the stopping point is not chosen, so that it adds no spread of its own.
    """
    crossed = [
        _run(encoder, steps, size, subset, seed, learning_rate=rate)
        for size, subset, seed in product(SIZES, SUBSETS, SEEDS)
    ]
    tuned = [_run(encoder, steps, PAIRED_SIZE, s, s, learning_rate=rate) for s in PAIRS]
    return [*crossed, *tuned, *(_run(encoder, steps, PAIRED_SIZE, s, s, method="frozen") for s in PAIRS)]


def main(
    records: Annotated[Path, typer.Option(help="Records file to go on with.")] = FILE,
    jobs: Annotated[int, typer.Option(help="Processes at a time, one thread each.")] = 1,
    encoder: Annotated[str, typer.Option(help="An encoder in place of the chapter's; use a file of its own.")] = (
        "klnorm-nano"
    ),
    steps: Annotated[int, typer.Option(help="Optimiser steps of each run.")] = 100,
) -> None:
    """Make the runs of the chapter on few labels; the same command goes on where it stopped."""
    failures = study(trials(encoder, steps), records, jobs)
    if not failures:
        failures = study(runs(chosen_rate(read_records(records)), encoder, steps), records, jobs)
    if failures:
        print("\n".join(["failed:", *failures]), file=sys.stderr)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
