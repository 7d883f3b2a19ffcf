"""Accuracy against cost: what each arm of a study gains on its baseline, and what it takes for it."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from klnorm_lib.figures import pareto as figure
from klnorm_lib.figures import style
from klnorm_lib.figures.embed import as_html
from klnorm_lib.figures.pareto import Arm
from klnorm_lib.pages import cost
from klnorm_lib.pages.outcomes import SECONDS, TEST, Outcome, over_settings
from klnorm_lib.studies import path

FEWEST = 4  # arms, below which a plot says no more than the table
SETTINGS = 2  # settings, below which the mean over them is a single result
UNITS = {"nll", "mse"}  # metrics that are no shares


def arms(found: Iterable[Outcome]) -> tuple[list[Arm], list[tuple[str, int, str]]]:
    """The arms of a study on its test rows, the baseline first, in the settings (task, size, encoder) with most arms.

    There are two such settings at least; arms that one of them lacks are left out. Where parts of the study have to be
    distinguished, the one with most outcomes is taken. Both lists are empty for fewer than two settings or four arms.
    """
    found = list(found)
    largest = Counter(c.part for c in found).most_common(1)[0][0] if found else None
    found = [c for c in found if c.part == largest]
    by_arm: dict[str, dict[tuple, Outcome]] = defaultdict(dict)
    base: dict[tuple, Outcome] = {}
    for c in found:
        setting = (c.task, c.size, c.against.encoder if c.against else c.encoder)
        if c.split != TEST or c.metric in UNITS or c.mean is None:
            continue
        if c.against is None:
            base[setting] = c
        elif math.isfinite(c.against.low):
            by_arm[c.arm][setting] = c
    counts = {setting: sum(setting in of for of in by_arm.values()) for setting in base}
    enough = sorted(counts.values(), reverse=True)[SETTINGS - 1 : SETTINGS]  # as many arms as so many settings have
    settings = [s for s in base if by_arm and enough and counts[s] >= enough[0]]
    by_arm = {name: of for name, of in by_arm.items() if all(s in of for s in settings)}
    if len(by_arm) + 1 < FEWEST or len(settings) < SETTINGS:
        return [], []
    steps = _steps(settings)
    first = base[settings[0]]
    added = statistics.fmean(_added(base[p]) for p in settings)
    shown = [Arm(first.label, 0.0, 0.0, 0.0, 1.0, added, 1.0 if steps else math.nan, True)]
    for name, of in by_arm.items():
        here = [of[p] for p in settings]
        gain, low, high = (100 * v for v in over_settings(here))
        ratios = [of[p].seconds / base[p].seconds for p in settings if of[p].seconds and base[p].seconds]
        time = statistics.geometric_mean(ratios) if ratios else math.nan
        added, step = statistics.fmean(map(_added, here)), steps.get(name, math.nan)
        shown.append(Arm(here[0].label, gain, low, high, time, added, step, name in SECONDS))
    return shown, settings


def _steps(settings: Sequence[tuple[str, int, str]]) -> dict[str, float]:
    """Time of a step over that of plain training, by arm, if it was measured with the encoder of all settings."""
    encoders = {encoder for *_, encoder in settings}
    if len(encoders) > 1 or not path("cost.json").is_file():
        return {}
    models = [model for model in cost.read()["models"] if model["encoder"] in encoders]
    return {name: median for model in models[:1] for name, (median, *_) in cost.ratios(model).items()}


def _added(outcome: Outcome) -> int:
    return outcome.added_parameters or 0


def shown(found: Iterable[Outcome]) -> bool:
    """Whether a study has enough arms in enough common settings for a plot."""
    return bool(arms(found)[0])


def sections(studies: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """A figure with its words for every study that has one, in markdown."""
    parts = []
    for name, found in studies.items():
        here, settings = arms(found)
        if here:
            style.use()
            parts.append(as_html(figure.draw(here), in_words(name, here, settings), _caption(name, settings)))
    return parts


def _caption(study: str, settings: Sequence[tuple[str, int, str]]) -> str:
    where = ", ".join(f"{task} at {size}" for task, size, _ in settings)
    encoders = ", ".join(dict.fromkeys(encoder for *_, encoder in settings))
    return (
        f"Study {study}, mean over {where}, with {encoders}. Bars: 95 % intervals of the mean difference to the "
        "baseline, whose own point has none. Dotted: the baseline and, where the study has one, its second: plain at "
        "the learning rate that most arms chose, or with half the dropout. The dashed line joins arms that no other "
        "arm beats in both mean and cost; where intervals overlap it is no ranking."
    )


def in_words(study: str, here: Sequence[Arm], settings: Sequence[tuple[str, int, str]]) -> str:
    """The figure for those who do not see it."""
    text = [
        f"{a.label}: {a.gain:+.1f} percentage points [{a.low:+.1f}, {a.high:+.1f}], {a.time:.2f} times the time, "
        f"{a.added:,.0f} added parameters"
        for a in sorted(here, key=lambda a: -a.gain)
    ]
    count = len({task for task, *_ in settings})
    return f"The gain against cost, study {study}, mean of {count} tasks. {'; '.join(text)}."
