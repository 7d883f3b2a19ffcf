"""Arms of a study compared setting by setting: two of them, or the four of a 2 x 2 design."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from klnorm_lib.study.record import Record
from klnorm_lib.study.stats.comparison import LEVEL, MARGIN, Comparison, with_holm
from klnorm_lib.study.stats.contrast import contrast, runs_of, values
from klnorm_lib.study.stats.paired import Scores

BY = ("task", "size", "encoder")


def compare(
    records: Iterable[Record],
    arm: str,
    baseline: str,
    metric: str | None = None,
    by: Sequence[str] = BY,
    margin: float = MARGIN,
    level: float = LEVEL,
    seed: int = 0,
) -> list[Comparison]:
    """Compare two arms of a study in every setting that has both, in order of first appearance.

    Replicates that only one of them has are left out and counted in ``note``. ``metric``: ``None`` for each task's
    primary one, else see ``klnorm_lib.study.stats.value``; the difference is always arm minus baseline. ``by``: what a
    setting is; ``task``, ``size``, ``encoder``, ``part`` or any field of a run. An arm that has an encoder of its own
    in every setting is compared with the baseline at each of the baseline's encoders. ``margin``: the difference, in
    the metric's unit, below which arms count as equivalent. Holm's correction is over all comparisons returned.
    ``seed``: of the bootstraps.

    Raises ``LookupError`` when no setting has both arms, ``StudyError`` when an arm has two runs for one replicate.
    """
    settings = _settings(records, (arm, baseline), tuple(by))
    found = [
        contrast(
            dict(zip(by, setting, strict=True)), (arm, baseline), [(1, ours), (-1, theirs)], metric, margin, level, seed
        )
        for setting, (ours, theirs) in settings.items()
    ]
    if not found:
        raise LookupError(
            f"no setting has finished runs of both {arm!r} and {baseline!r} among the records of a study's final stage"
        )
    return with_holm(found)


def interaction(
    records: Iterable[Record],
    both: str,
    first: str,
    second: str,
    neither: str,
    metric: str | None = None,
    by: Sequence[str] = BY,
    margin: float = MARGIN,
    level: float = LEVEL,
    seed: int = 0,
) -> list[Comparison]:
    r"""Whether two treatments add up: the difference of differences of a 2 x 2 design, paired by replicate.

    .. math:: D_i = (s_{i,\mathrm{both}} - s_{i,\mathrm{second}}) - (s_{i,\mathrm{first}} - s_{i,\mathrm{neither}})

    with :math:`s` the score of an arm in replicate i: what the first treatment adds beside the second, minus what it
    adds alone. Zero: the effects add up. ``better``: together they do more than the sum, ``worse``: less, which two
    treatments that each help may still do and be worth having both. ``equivalent``: the interval lies within
    ``margin``. Four scores vary more than two: where their noise is independent, an interaction takes twice the
    replicates of a difference of the same size.

    Returns a ``Comparison`` for every setting that has all four arms, in order of first appearance: ``arm`` is
    ``both``, ``baseline`` is "first + second - neither", whose scores are what the sum of the effects predicts.
    Interval, test rows, Holm's correction and the other arguments are those of :func:`compare`.

    Raises ``LookupError`` when no setting has all four arms, ``ValueError`` when two of them are the same arm,
    ``StudyError`` when an arm has two runs for one replicate. Source: Montgomery 2017, Design and Analysis of
    Experiments, chapter 6.
    """
    names = (both, first, second, neither)
    if len(set(names)) < len(names):
        raise ValueError(f"an interaction needs four different arms, got {', '.join(map(repr, names))}")
    records, by = list(records), tuple(by)
    arms = [runs_of(records, arm, by) for arm in names]
    predicted = f"{first} + {second} - {neither}"
    found = [
        contrast(
            dict(zip(by, setting, strict=True)),
            (both, predicted),
            [(sign, arm[setting]) for sign, arm in zip((1, -1, -1, 1), arms, strict=True)],
            metric,
            margin,
            level,
            seed,
        )
        for setting in arms[0]
        if all(setting in arm for arm in arms)
    ]
    if not found:
        raise LookupError(
            f"no setting has finished runs of all of {', '.join(map(repr, names))} among the records of a study's "
            "final stage"
        )
    return with_holm(found)


def scores(
    records: Iterable[Record],
    arm: str,
    metric: str | None = None,
    by: Sequence[str] = BY,
) -> dict[tuple, Scores]:
    """Scores of one arm of a study by setting and replicate: ``{(task, size, encoder): {(split seed, seed): score}}``.

    Raises ``StudyError`` when one replicate has two runs in a setting.
    """
    return {setting: values(runs, metric) for setting, runs in runs_of(records, arm, tuple(by)).items()}


def _settings(records: Iterable[Record], arms: tuple[str, str], by: tuple[str, ...]):
    records = list(records)
    first, second = (runs_of(records, arm, by) for arm in arms)
    if "encoder" in by:
        first, second = _at_encoders_of(first, second, by.index("encoder"))
    return {setting: (first[setting], second[setting]) for setting in first if setting in second}


def _at_encoders_of(first: dict, second: dict, at: int) -> tuple[dict, dict]:
    """An arm with one encoder of its own is compared at every encoder of the other arm."""
    ours, theirs = ({setting[at] for setting in runs} for runs in (first, second))
    if not ours & theirs and min(len(ours), len(theirs)) == 1:
        if len(ours) == 1:
            first = _spread(first, theirs, at)
        else:
            second = _spread(second, ours, at)
    return first, second


def _spread(runs: dict, encoders: Iterable[str], at: int) -> dict:
    return {(*s[:at], encoder, *s[at + 1 :]): found for encoder in sorted(encoders) for s, found in runs.items()}
