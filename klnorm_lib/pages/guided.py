"""The study of dropout rates: which contrasts decide, what rates each arm ran at, and what could have been seen."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from klnorm_lib.study import Record
from klnorm_lib.study.stats import Comparison, compare, minimal_difference, with_holm

Pair = tuple[str, str]
DECISIVE: dict[Pair, str] = {
    ("guided", "uniform_05"): "Guidance, the mean rate being the same?",
    ("guided", "guided_random"): "The order of the sites, the rates being the same?",
    ("guided", "guided_reverse"): "The order, against its opposite?",
    ("guided", "guided_site_type"): "More than the type of a site?",
    ("uniform_05", "uniform_10"): "Or just less dropout?",
}  # fixed before any run of the study was made
DECIDING = ("headline", "minilm")  # the parts that hold every arm of every contrast
CHANGED = re.compile(
    r"(?:[\w+]+: )?(?P<site>embeddings|layer\.\d+\.\w+): (?P<old>[\d.e+-]+) -> (?P<new>[\d.e+-]+)(?:, \w+)?"
)


def contrasts(records: Iterable[Record], pairs: Iterable[Pair] = DECISIVE) -> list[Comparison]:
    """Arm minus baseline of each pair in every setting that has both, with Holm's correction over all of them.

    Raises ``LookupError`` for a pair that no setting has.
    """
    records = list(records)
    return with_holm([c for arm, baseline in pairs for c in compare(records, arm, baseline)])


def against(records: Iterable[Record], arms: Iterable[str], baselines: Iterable[str]) -> list[Comparison]:
    """Every arm minus every other arm named as a baseline, setting by setting; Holm's correction is over all of them.

    Pairs that no setting has are left out. Comparisons of one setting stand together, those of one baseline within it.
    """
    records, arms = list(records), list(arms)
    recorded = {r.study["arm"] for r in records if r.study and r.study["stage"] == "final" and r.status == "finished"}
    wanted = [(arm, base) for base in baselines for arm in arms if arm != base and {arm, base} <= recorded]
    found = []
    for arm, base in wanted:
        try:
            found += compare(records, arm, base)
        except LookupError:  # no setting has both
            continue
    settings = list(dict.fromkeys((c.task, c.size, c.encoder) for c in found))
    return with_holm(sorted(found, key=lambda c: settings.index((c.task, c.size, c.encoder))))


def site_rates(record: Record) -> dict[str, float]:
    """Site -> dropout rate that a run set, measured in its model when it was set; empty if it set none."""
    return {site: new for site, (_, new) in _lines(record).items()}


def _lines(record: Record) -> dict[str, tuple[float, float]]:
    found = filter(None, map(CHANGED.fullmatch, record.method["changed"]))
    return {m["site"]: (float(m["old"]), float(m["new"])) for m in found}


def rates(records: Iterable[Record]) -> pd.DataFrame:
    """One row for each arm and encoder: the rates of its final runs, as the records have them.

    Columns: encoder, arm, label, sites (their number), runs, replicates, mean (unweighted over sites, then over runs),
    least and most (of the means of single runs), low and high (of single rates), orders (how many different assignments
    of rates to sites the runs had), and the mean rate of each type of site. An arm that sets no rate runs at those of
    its encoder, which the other arms changed. Raises ``LookupError`` where no arm of an encoder says them.
    """
    final = [r for r in records if r.study and r.study["stage"] == "final" and r.status == "finished"]
    before: dict[str, dict[str, float]] = {}
    for r in final:
        if lines := _lines(r):
            before.setdefault(r.encoder["name"], {site: old for site, (old, _) in lines.items()})
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for r in final:
        groups[r.encoder["name"], r.study["arm"]].append(r)
    return pd.DataFrame([_row(encoder, of, before) for (encoder, _), of in groups.items()])


def _row(encoder: str, records: Sequence[Record], before: Mapping[str, Mapping[str, float]]) -> dict:
    if encoder not in before:
        raise LookupError(f"no run with {encoder} changed a dropout rate, so its own rates are not in the records")
    runs = [site_rates(r) or before[encoder] for r in records]
    means = [math.fsum(run.values()) / len(run) for run in runs]
    every = [p for run in runs for p in run.values()]
    by_type: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for site, p in run.items():
            by_type[site.rpartition(".")[2]].append(p)
    return {
        "encoder": encoder,
        "arm": records[0].study["arm"],
        "label": records[0].study["label"],
        "sites": len(runs[0]),
        "runs": len(runs),
        "replicates": len({(r.run["split_seed"], r.run["seed"]) for r in records}),
        "mean": float(np.mean(means)),
        "least": min(means),
        "most": max(means),
        "low": min(every),
        "high": max(every),
        "orders": len({tuple(sorted(run.items())) for run in runs}),
        **{kind: float(np.mean(values)) for kind, values in by_type.items()},
    }


def detectable(comparisons: Iterable[Comparison], wanted: float = 0.8) -> pd.DataFrame:
    """What each comparison could have shown: one row each, in percentage points.

    Columns: task, encoder, arm, baseline, replicates, sd (of a paired difference over replicates), row_se (standard
    error from the test rows), detectable (the smallest true difference whose interval leaves zero out with probability
    ``wanted``, before Holm's correction), half (half of the interval). They rest on the spread that was seen, not on
    the mean. A comparison without spread is left out.
    """
    rows = []
    for c in comparisons:
        if not math.isfinite(c.low) or c.high == c.low:
            continue
        sd = max(float(np.std(c.differences, ddof=1)), 1e-9)
        least = minimal_difference(sd, c.k, wanted, c.level, c.row_se, c.rows or 1_000)
        shares = {"sd": sd, "row_se": c.row_se, "detectable": least, "half": (c.high - c.low) / 2}
        named = {"task": c.task, "encoder": c.encoder, "arm": c.arm, "baseline": c.baseline, "replicates": c.k}
        rows.append(named | {name: 100 * value for name, value in shares.items()})
    return pd.DataFrame(rows)
