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
class Asked:
    """A family of comparisons that answers one claim: every arm minus every baseline, in some parts of a study."""

    study: str
    arms: tuple[str, ...]
    baselines: tuple[str, ...]
    metrics: tuple[str | None, ...] = (None,)
    parts: tuple[str, ...] | None = None


CLAIMS = {
    "expressiveness": Asked("text", ("klnorm_beta0",), ("layernorm", "batchnorm", "rmsnorm")),
    "overfitting": Asked("text", KLNORM, (SHARED,), ("gap", "ece")),
    "calibration": Asked("text", ("klnorm_b",), ("klnorm_beta0", "layernorm"), ("gap", "ece")),
    "text": Asked("text", KLNORM, ("plain",)),
    "shared": Asked("text", KLNORM, (SHARED,)),
    "norms": Asked("text", ("klnorm_b",), ("layernorm", "batchnorm", "rmsnorm")),
    "regularisers": Asked("text", ("klnorm_b",), ("dropout", "mixout", "weight_decay", "vib")),
    "price": Asked("text", ("klnorm_b",), ("klnorm_beta0",)),
    "speech": Asked("speech", ("klnorm_b_shared",), (SHARED, "layernorm_shared", "klnorm_beta0_shared", "vib_shared")),
    "speech_tuned": Asked("speech", ("klnorm_b",), ("plain", "layernorm", "klnorm_beta0", "vib", "dropout")),
    "ood": Asked("ood", ("klnorm_b",), ("plain", SHARED, "layernorm", "klnorm_beta0"), (OOD,)),
    "shortcut": Asked("shortcut", KLNORM, ("plain",), (OOD,), ("headline", "inference")),
    "vib": Asked("text", ("vib",), ("plain", "vib_beta0")),
    "vib_ood": Asked("ood", ("vib",), ("plain",), (OOD,)),
    "guided": Asked("guided", ("guided",), ("uniform_10",), parts=DECIDING),
    "guided_half": Asked("guided", ("guided",), ("uniform_05",), parts=DECIDING),
    "guided_order": Asked(
        "guided", ("guided",), ("guided_random", "guided_reverse", "guided_site_type"), parts=DECIDING
    ),
    "halved": Asked("guided", ("uniform_05", "uniform_00"), ("uniform_10",), parts=DECIDING),
    "guided_scores": Asked(
        "guided",
        ("guided",),
        ("guided_mass", "guided_sum", "guided_linear_matched", "guided_log_matched", "guided_task"),
        parts=DECIDING,
    ),
    "gaussian": Asked("guided", ("guided",), ("gaussian",), parts=DECIDING),
    "guided_tuned": Asked("guided", ("guided_tuned",), ("uniform_tuned",)),
    "guided_neighbours": Asked("guided", ("guided_tuned",), ("r_drop", "mixout", "ewc", "l2_sp", "child_tuning")),
    "fisher_penalty": Asked("guided", ("ewc",), ("l2_sp",)),
}


def comparisons(studies: Studies, asked: Asked) -> list[Comparison]:
    """The comparisons of a family that the records hold, with Holm's correction over all of them."""
    records = [r for r in studies.get(asked.study, ()) if r.study and r.study["stage"] == "final"]
    if asked.parts:
        records = [r for r in records if r.study["part"] in asked.parts]
    found = []
    for metric in asked.metrics:
        names = sorted({f"ood/{name}" for r in records for name in r.ood}) if metric == OOD else [metric]
        for name in names:
            held = [r for r in records if metric != OOD or name.removeprefix("ood/") in r.ood]
            found += [c for arm in asked.arms for base in asked.baselines for c in compared(held, arm, base, name)]
    return with_holm(found) if found else []


def compared(records: Sequence[Record], arm: str, baseline: str, metric: str | None) -> list[Comparison]:
    """Arm minus baseline wherever at least two draws have both; an empty list where none has."""
    try:
        return [c for c in compare(records, arm, baseline, metric=metric, by=BY) if c.k > 1]
    except LookupError:  # no place has both
        return []


def answer(found: Sequence[Comparison]) -> str:
    """What a family of comparisons says of the claim that the arm is better, after Holm's correction, in a sentence."""
    if not found:
        return NOTHING
    clear = [c for c in found if c.p_holm < 1 - c.level]
    better, worse = (sum(c.verdict == verdict for c in clear) for verdict in ("better", "worse"))
    equivalent = sum(c.verdict == "equivalent" for c in found)
    if better == len(found):
        said = "Shown in every cell"
    elif better and worse:
        said = f"Mixed: better in {better} of {len(found)} cells, worse in {worse}"
    elif better:
        said = f"Shown in {better} of {len(found)} cells"
    elif worse:
        said = f"Not shown; the opposite in {worse} of {len(found)} cells"
    else:
        said = f"Not shown in any of {len(found)} cells, nor the opposite"
    return said + (f"; equivalent in {equivalent}" if equivalent else "")
