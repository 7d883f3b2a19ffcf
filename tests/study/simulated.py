"""Records and differences whose truth is known, for the tests of the statistics."""

import math
from types import SimpleNamespace

import numpy as np
from scipy import optimize
from scipy import stats as scipy_stats

from klnorm_lib.study import rows


def crossed(rng, k, n, seed_sd, row_sd, noise_sd=1.0, mean=0.0):
    """Differences (k, n) of replicates x test rows: mean + replicate + row + noise, all normal."""
    return (
        mean + seed_sd * rng.normal(size=(k, 1)) + row_sd * rng.normal(size=(1, n)) + noise_sd * rng.normal(size=(k, n))
    )


def record(arm, replicate, score, task="t", size=200, encoder="e", row_scores=None, metric="accuracy", **fields):
    """As much of a finished record of a study's final stage as the statistics read."""
    made = SimpleNamespace(
        status="finished",
        study={"name": "s", "part": "headline", "arm": arm, "label": arm, "stage": "final"},
        task={"name": task, "primary_metric": metric},
        encoder={"name": encoder},
        run={"task": task, "size": size, "split_seed": replicate, "seed": replicate, "method": arm, "device": "cpu"},
        rows={"train": 80, "validation": 20},
        test={metric: score},
        ood={},
        gap={},
        calibration={"test": {}, "ood": {}},
        row_scores={} if row_scores is None else {"test": rows.encode(metric, np.asarray(row_scores, dtype=float))},
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def records_of_rows(rng, k=5, n=200, lift=0.0, tasks=("t",), replicate_sd=0.3):
    """Records of ``plain`` and ``new`` with 0/1 row scores; replicates and rows move each arm's chance of being right.

    A row is right when ``row + own part + arm's level + replicate + noise > 0``, all normal: 1, 1, ``lift`` for
    ``new``, ``replicate_sd`` and 1. Rows are the same for both arms, their own parts are not. The true accuracy of a
    level v is ``Phi(v / sqrt(3 + replicate_sd**2))``.
    """
    made = []
    for task in tasks:
        hardness = rng.normal(size=n)
        for arm, level in (("plain", 0.0), ("new", lift)):
            own = rng.normal(size=n)
            for replicate in range(k):
                right = hardness + own + level + replicate_sd * rng.normal() + rng.normal(size=n) > 0
                made.append(record(arm, replicate, float(right.mean()), task, row_scores=right))
    return made


def interval_by_hand(table, level=0.95):
    """The interval of a mean over crossed replicates and rows (k, n), from sums of squares."""
    table = np.asarray(table, dtype=float)
    (k, n), mean = table.shape, table.mean()
    replicates = n * sum((row.mean() - mean) ** 2 for row in table) / (k - 1)
    rows = k * sum((column.mean() - mean) ** 2 for column in table.T) / (n - 1)
    left = ((table - mean) ** 2).sum() - (k - 1) * replicates - (n - 1) * rows
    errors = replicates / (k * n), max(0.0, rows - left / ((k - 1) * (n - 1))) / (k * n)
    quantiles = (scipy_stats.t.ppf((1 + level) / 2, df) for df in (k - 1, n - 1))
    half = math.sqrt(sum(q**2 * e for q, e in zip(quantiles, errors, strict=True)))
    return mean - half, mean + half


def detectable_by_hand(sd, k, wanted=0.8):
    """The difference that Student's test of k pairs finds with that chance, from the noncentral t distribution."""
    limit = scipy_stats.t.ppf(0.975, k - 1)

    def lacking(difference):
        t = scipy_stats.nct(k - 1, difference * math.sqrt(k) / sd)
        return t.sf(limit) + t.cdf(-limit) - wanted

    return optimize.brentq(lacking, 0.0, (2 * limit + 3) * sd / math.sqrt(k))


def holm_by_hand(p_values):
    """Holm's p values step by step: the smallest times their number, the next times one less, none below the last."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    found, largest = [0.0] * len(p_values), 0.0
    for step, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[i]))
        found[i] = largest
    return found
