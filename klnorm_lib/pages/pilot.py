"""From a pilot to the settings of a study: where there is anything to see, and which difference could be seen there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from klnorm_lib.study import Record
from klnorm_lib.study.stats import compare, minimal_difference, replicates_needed, scores, t_interval
from klnorm_lib.study.stats import spread_factors as spread_factors

# Share of the commonest label among the public test rows. To a correlation a constant answer is worth nothing.
COMMONEST = {
    "mrpc": 279 / 408,
    "rte": 146 / 277,
    "sst2": 444 / 872,
    "trec": 138 / 500,
    "subj": 0.5,
    "snli": 3368 / 9824,
}
HEADROOM = 0.1  # a task has headroom when its best arm lies so far above the commonest answer


def table(
    records: Iterable[Record], pairs: Sequence[tuple[str, str]], part: str, k: int = 10, wanted: float = 0.8
) -> pd.DataFrame:
    """One row a task: score of its best arm, what a constant answer scores, and what k replicates could show.

    ``pairs``: (arm, baseline) at equal hyperparameters; the variance of their differences is the mean over the pairs.
    Columns: metric, replicates, arm (the best one by mean), score, low, high (Student's interval of its mean, 95 %),
    constant, headroom (score minus constant), sd (of a paired difference), detectable (the smallest true difference
    that ``k`` replicates show with probability ``wanted``, test rows' error included), for_a_point (replicates that
    would show a true difference of 0.01 so often; none if no number does), freedom (degrees of freedom behind sd),
    chosen (low above constant, and headroom above ``HEADROOM``). Raises ``LookupError`` without such a pair.
    """
    records = [r for r in records if r.study and r.study["part"] == part]
    found = {pair: {c.task: c for c in compare(records, *pair)} for pair in pairs}
    by_arm = {arm: scores(records, arm) for arm in dict.fromkeys(arm for pair in pairs for arm in pair)}
    rows = {}
    for task in dict.fromkeys(task for tasks in found.values() for task in tasks):
        compared = [tasks[task] for tasks in found.values() if task in tasks]
        found_scores = {
            arm: list(v.values()) for arm, of in by_arm.items() for setting, v in of.items() if setting[0] == task
        }
        arm, best = max(found_scores.items(), key=lambda pair: np.mean(pair[1]))
        low, high = t_interval(np.array(best))
        score, constant = float(np.mean(best)), COMMONEST.get(task, 0.0)
        freedom = sum(c.k - 1 for c in compared)
        sd = float(np.sqrt(sum(np.var(c.differences, ddof=1) * (c.k - 1) for c in compared) / freedom))
        row_se = float(np.mean([c.row_se for c in compared]))
        rows[task] = {
            "metric": compared[0].metric,
            "replicates": len(best),
            "arm": arm,
            "score": score,
            "low": low,
            "high": high,
            "constant": constant,
            "headroom": score - constant,
            "sd": sd,
            "detectable": minimal_difference(sd, k, wanted, row_se=row_se),
            "for_a_point": replicates_needed(0.01, sd, wanted, row_se=row_se),
            "freedom": freedom,
            "chosen": low > constant and score - constant > HEADROOM,
        }
    return pd.DataFrame(rows).T.infer_objects()
