"""What a training step costs: time against a baseline, measured in turns, and the memory that it allocates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Step = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds of each arm by round, (rounds,) each: of the processor (``cpu``), and by the clock (``wall``)."""

    cpu: dict[str, list[float]]
    wall: dict[str, list[float]]


def in_turns(steps: Mapping[str, Step], rounds: int, warmup: int = 2, seed: int = 0) -> Times:
    """Time every step ``rounds`` times: in each round each arm once, in an order drawn anew from ``seed``.

    So whatever slows the machine down for a while slows all arms. ``warmup`` rounds are run first and left out.
    Processor time is that of this process, all threads: on a machine with other work it says more than the clock.
    Raises ``ValueError`` for no step, or fewer than one round.
    """
    if not steps or rounds < 1 or warmup < 0:
        raise ValueError(f"needs at least one step and one round, got {len(steps)} steps, {rounds} rounds")
    random = np.random.default_rng(seed)
    names = list(steps)
    times = Times({name: [] for name in names}, {name: [] for name in names})
    for turn in range(warmup + rounds):
        for index in random.permutation(len(names)):
            name = names[index]
            cpu, wall = time.process_time(), time.perf_counter()
            steps[name]()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if turn >= warmup:
                times.cpu[name].append(cpu)
                times.wall[name].append(wall)
    return times


def peak_bytes(step: Step) -> int:
    """The most memory, in bytes, that ``step`` used at once of what it allocated on the processor, by torch's own log.

    Counted are tensors, temporary ones inside of operations included; not what was there before the step. The log is
    of the allocator, so the number does not depend on what else the machine does.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as log:
        step()
    logged = log.profiler.kineto_results.events()
    events = [e for e in logged if e.name() == "[memory]" and e.device_type().name == "CPU"]
    return int(max(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]), default=0))


def ratio(arm: list[float], baseline: list[float], level: float = 0.95) -> tuple[float, float, float]:
    r"""Median over rounds of arm / baseline, with an interval for the median that assumes no distribution.

    Of n ratios in ascending order, the j-th smallest and the j-th largest: between them lies the median with
    probability :math:`1 - 2\Pr[\mathrm{Bin}(n, 1/2) < j]`; j is the largest for which this is at least ``level``.
    Returns (median, low, high). Raises ``ValueError`` for unequal lengths, or too few rounds for ``level``: at 95 %
    they must be 6.
    """
    from scipy.stats import binom

    if len(arm) != len(baseline):
        raise ValueError(f"the rounds are paired, but there are {len(arm)} of one and {len(baseline)} of the other")
    ratios = np.sort(np.asarray(arm) / np.asarray(baseline))
    j = int(binom.ppf((1 - level) / 2, len(ratios), 0.5))
    if binom.cdf(j - 1, len(ratios), 0.5) > (1 - level) / 2:
        j -= 1
    if j < 1:
        raise ValueError(f"{len(ratios)} rounds are too few for an interval at level {level}")
    return float(np.median(ratios)), float(ratios[j - 1]), float(ratios[-j])
