"""One arm over several places: the mean of its differences, with an interval."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from klnorm_lib.study.stats.comparison import Comparison


def over_places(comparisons: Iterable[Comparison]) -> tuple[float, float, float]:
    r"""Mean difference over places, every place counting the same, and the interval at their level: mean, low, high.

    .. math:: h = \frac1M \sqrt{\sum_{\mathrm{task}} \Bigl(\sum_{\mathrm{place\ of\ task}} h_\mathrm{place}\Bigr)^2}

    with :math:`h` half of a width and M the number of places. Half widths join by squares over tasks, whose errors are
    independent, and add up over the places of one task, which share test rows and nested subsets. The places are
    fixed: nothing is said of other tasks. A comparison without an interval is left out; NaN without any.
    Source: Zou and Donner 2008.
    """
    known = [c for c in comparisons if math.isfinite(c.low)]
    if not known:
        return math.nan, math.nan, math.nan
    by_task: dict[str | None, float] = defaultdict(float)
    for c in known:
        by_task[c.task] += (c.high - c.low) / 2
    mean = sum(c.mean for c in known) / len(known)
    half = math.hypot(*by_task.values()) / len(known)
    return mean, mean - half, mean + half
