"""The claims of the papers as families of comparisons, and what the records answer to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from klnorm_lib.pages.guided import DECIDING
from klnorm_lib.study import Record
from klnorm_lib.study.stats import Comparison, compare, with_holm

Studies = Mapping[str, Sequence[Record]]
KLNORM = ("klnorm_a", "klnorm_b", "klnorm_c")
SHARED = "plain_shared"  # the plain model at the rate that most other arms chose
NOTHING = "*Not measured yet.*"
BY = ("task", "size", "encoder", "steps")
OOD = "ood"  # stands for the primary metric on every out-of-domain set


@dataclass(frozen=True)
class Family:
    """A family of comparisons that answers one claim: every arm minus every baseline, in some parts of a study."""

    study: str
    arms: tuple[str, ...]
    baselines: tuple[str, ...]
    metrics: tuple[str | None, ...] = (None,)
    parts: tuple[str, ...] | None = None


CLAIMS = {
    "expressiveness": Family("text", ("klnorm_beta0",), ("layernorm", "batchnorm", "rmsnorm")),
    "overfitting": Family("text", KLNORM, (SHARED,), ("gap", "ece")),
    "calibration": Family("text", ("klnorm_b",), ("klnorm_beta0", "layernorm"), ("gap", "ece")),
    "text": Family("text", KLNORM, ("plain",)),
    "shared": Family("text", KLNORM, (SHARED,)),
    "norms": Family("text", ("klnorm_b",), ("layernorm", "batchnorm", "rmsnorm")),
    "regularisers": Family("text", ("klnorm_b",), ("dropout", "mixout", "weight_decay", "vib")),
    "penalty": Family("text", ("klnorm_b",), ("klnorm_beta0",)),
    "speech": Family("speech", ("klnorm_b_shared",), (SHARED, "layernorm_shared", "klnorm_beta0_shared", "vib_shared")),
    "speech_tuned": Family("speech", ("klnorm_b",), ("plain", "layernorm", "klnorm_beta0", "vib", "dropout")),
    "ood": Family("ood", ("klnorm_b",), ("plain", SHARED, "layernorm", "klnorm_beta0"), (OOD,)),
    "shortcut": Family("shortcut", KLNORM, ("plain",), (OOD,), ("headline", "inference")),
    "vib": Family("text", ("vib",), ("plain", "vib_beta0")),
    "vib_ood": Family("ood", ("vib",), ("plain",), (OOD,)),
    "guided": Family("guided", ("guided",), ("uniform_10",), parts=DECIDING),
    "guided_half": Family("guided", ("guided",), ("uniform_05",), parts=DECIDING),
    "guided_order": Family(
        "guided", ("guided",), ("guided_random", "guided_reverse", "guided_site_type"), parts=DECIDING
    ),
    "halved": Family("guided", ("uniform_05", "uniform_00"), ("uniform_10",), parts=DECIDING),
    "guided_scores": Family(
        "guided",
        ("guided",),
        ("guided_mass", "guided_sum", "guided_linear_matched", "guided_log_matched", "guided_task"),
        parts=DECIDING,
    ),
    "gaussian": Family("guided", ("guided",), ("gaussian",), parts=DECIDING),
    "guided_tuned": Family("guided", ("guided_tuned",), ("uniform_tuned",)),
    "guided_neighbours": Family("guided", ("guided_tuned",), ("r_drop", "mixout", "ewc", "l2_sp", "child_tuning")),
    "fisher_penalty": Family("guided", ("ewc",), ("l2_sp",)),
}


def comparisons(studies: Studies, family: Family) -> list[Comparison]:
    """The comparisons of a family that the records hold, with Holm's correction over all of them."""
    records = [r for r in studies.get(family.study, ()) if r.study and r.study["stage"] == "final"]
    if family.parts:
        records = [r for r in records if r.study["part"] in family.parts]
    found = []
    for metric in family.metrics:
        names = sorted({f"ood/{name}" for r in records for name in r.ood}) if metric == OOD else [metric]
        for name in names:
            tested = [r for r in records if metric != OOD or name.removeprefix("ood/") in r.ood]
            found += [c for arm in family.arms for base in family.baselines for c in compared(tested, arm, base, name)]
    return with_holm(found) if found else []


def compared(records: Sequence[Record], arm: str, baseline: str, metric: str | None) -> list[Comparison]:
    """Arm minus baseline wherever at least two replicates have both; an empty list where none has."""
    try:
        return [c for c in compare(records, arm, baseline, metric=metric, by=BY) if c.k > 1]
    except LookupError:  # no setting has both
        return []


def answer(found: Sequence[Comparison]) -> str:
    """What a family of comparisons says of the claim that the arm is better, after Holm's correction, in a sentence."""
    if not found:
        return NOTHING
    clear = [c for c in found if c.p_holm < 1 - c.level]
    better, worse = (sum(c.verdict == verdict for c in clear) for verdict in ("better", "worse"))
    equivalent = sum(c.verdict == "equivalent" for c in found)
    if better == len(found):
        said = "Shown in every comparison"
    elif better and worse:
        said = f"Mixed: better in {better} of {len(found)} comparisons, worse in {worse}"
    elif better:
        said = f"Shown in {better} of {len(found)} comparisons"
    elif worse:
        said = f"Not shown; the opposite in {worse} of {len(found)} comparisons"
    else:
        said = f"Not shown in any of {len(found)} comparisons, nor the opposite"
    return said + (f"; equivalent in {equivalent}" if equivalent else "")
