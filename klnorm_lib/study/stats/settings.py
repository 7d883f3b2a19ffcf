"""One arm over several settings (task, size and encoder): the mean of its differences, with an interval."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from klnorm_lib.study.stats.comparison import Comparison


def over_settings(comparisons: Iterable[Comparison]) -> tuple[float, float, float]:
    r"""Mean difference over settings, each counting the same, and the interval at their level: mean, low, high.

    .. math:: h = \frac1M \sqrt{\sum_{\mathrm{task}} \Bigl(\sum_{\mathrm{setting\ of\ task}} h_\mathrm{setting}\Bigr)^2}

    with :math:`h` half of a width and M the number of settings. Half widths join by squares over tasks, whose errors
    are independent, and add up over the settings of one task, which share test rows and nested subsets. The settings
    are fixed: nothing is said of other tasks. A comparison without an interval is left out; NaN without any. Source:
    Zou and Donner 2008.
    """
    finite = [c for c in comparisons if math.isfinite(c.low)]
    if not finite:
        return math.nan, math.nan, math.nan
    by_task: dict[str | None, float] = defaultdict(float)
    for c in finite:
        by_task[c.task] += (c.high - c.low) / 2
    mean = sum(c.mean for c in finite) / len(finite)
    half = math.hypot(*by_task.values()) / len(finite)
    return mean, mean - half, mean + half
