"""The page on what we could not reproduce: the paper's claims, one by one, beside the verdicts of the records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pandas as pd

from klnorm_lib.report import counts, forest, pilot
from klnorm_lib.report.cells import by_study
from klnorm_lib.report.tables import packaged, to_markdown
from klnorm_lib.study import Record, grid
from klnorm_lib.study.stats import Comparison, compare, with_holm

Studies = Mapping[str, Sequence[Record]]
KLNORM = ("klnorm_a", "klnorm_b", "klnorm_c")
SHARED = "plain_shared"  # the plain model at the rate that most other arms chose
NOTHING = "*Not measured yet.*"
BY = ("task", "size", "encoder", "steps")
DEFAULT, OTHERS = "beta_1e-3", ("plain", "layernorm", "vib")  # of the ablation
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
}


def page(studies: Studies | None = None) -> str:
    """The whole page in markdown; what is not recorded says so. ``studies``: by default those that are packaged."""
    held = by_study(packaged()) if studies is None else studies
    parts = {name: _claim(held, asked) for name, asked in CLAIMS.items()}
    parts |= {"runs": _runs(held), "chance": _chance(held), "full": _full(), "ablation": _ablation(held)}
    parts |= {"verdicts": _verdicts(held), "cost": _cost(), "unlucky": _unlucky(held)}
    prose = Path(__file__).with_suffix(".md").read_text("utf-8")
    return re.sub(r"<!-- ([\w-]+) -->", lambda mark: parts[mark[1]], prose)


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
            found += [c for arm in asked.arms for base in asked.baselines for c in _compare(held, arm, base, name)]
    return with_holm(found) if found else []


def _compare(records: Sequence[Record], arm: str, baseline: str, metric: str | None) -> list[Comparison]:
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


def _claim(studies: Studies, asked: Asked) -> str:
    found = comparisons(studies, asked)
    if not found:
        return NOTHING
    names = forest.labels(studies[asked.study])
    what, _ = forest.pairs(found, names)
    encoders = ", ".join(dict.fromkeys(str(c.encoder).split("/")[-1] for c in found))
    told = f"**{answer(found)}** (after Holm's correction; {forest.behind(found)}; {encoders}). {forest.summary(found)}"
    told += _other_rates(studies[asked.study], found, names)
    table = forest.table(found, names).T.reset_index(names=what)
    return f"{told}\n\n:::{{dropdown}} Every interval, in points\n{to_markdown(table)}:::"


def _other_rates(records: Sequence[Record], found: Sequence[Comparison], names: Mapping[str, str]) -> str:
    """Where a clear difference is one between two learning rates as well, a sentence that says so."""
    rates = {
        (r.study["arm"], r.task["name"], r.run["size"], r.encoder["name"], r.run.get("steps")): r.run["learning_rate"]
        for r in records
        if r.study["stage"] == "final"
    }
    apart = []
    for c, place in zip(found, forest.places(found), strict=True):
        if c.p_holm < 1 - c.level:
            place_of = (c.task, c.size, c.encoder, c.cell.get("steps"))
            one, other = (rates[(arm, *place_of)] for arm in (c.arm, c.baseline))
            if one != other:
                apart.append(f"{names[c.arm]} and {names[c.baseline]} on {place} ({one:g} and {other:g})")
    if not apart:
        return ""
    return f" Clear, but tuned to other learning rates, so that the difference may be theirs: {'; '.join(apart)}."


def _verdicts(studies: Studies) -> str:
    """The verdicts (a) to (e) on KL-Norm in a table: question, runs, answer, and the two outermost differences."""
    rows = []
    for letter, question, name in (
        ("a", "few labels, text: KL-Norm against plain, at the rate that most arms chose", "shared"),
        ("a", "few labels, text: KL-Norm against plain as it was tuned (see the note below)", "text"),
        ("a", "few labels, text: against the same layer without its price", "price"),
        ("a", "few labels, text: against other normalisations", "norms"),
        ("b", "out of domain: KL-Norm B against its controls", "ood"),
        ("b", "without the shortcut, or with it reversed: against plain", "shortcut"),
        ("c", "few labels, speech: KL-Norm B against its controls", "speech"),
    ):
        found = comparisons(studies, CLAIMS[name])
        rows.append([f"({letter})", question, _number(studies, CLAIMS[name].study), answer(found), _outermost(found)])
    found = _against_default(studies)
    variants = "what of it matters: variants of KL-Norm against the default"
    rows.append(["(d)", variants, _number(studies, "ablation"), _variants(studies), _outermost(found)])
    rows.append(["(e)", "cost: KL-Norm B against plain", "–", _cheap(), "–"])
    return to_markdown(pd.DataFrame(rows, columns=["", "question", "runs", "answer", "lowest and highest, points"]))


def _number(studies: Studies, study: str) -> str:
    return f"{len({r.hash for r in studies.get(study, ())}):,}"


def _outermost(found: Sequence[Comparison]) -> str:
    """The lowest and the highest mean difference of a family, each with its interval."""
    if not found:
        return "–"
    ordered = sorted(found, key=lambda c: c.mean)
    return " and ".join(forest.told(c) for c in (ordered[0], ordered[-1]))


def _unlucky(studies: Studies) -> str:
    """A warning where the plain arm does worse than at another rate, so that every arm looks good beside it."""
    found = [c for study in studies for c in comparisons(studies, Asked(study, ("plain",), (SHARED,)))]
    clear = [c for c in found if c.verdict == "worse" and c.p_holm < 1 - c.level]
    if not clear:
        return ""
    told = "; ".join(f"{c.task} {forest.told(c)}" for c in clear)
    return (
        "**A gain over the plain arm alone is no gain.** The plain arm does worse than the same model at the learning "
        f"rate that most other arms chose: {told}, in points. It was unlucky in its tuning there, and beside it every "
        "arm looks good ([chapter 08](../notebooks/08_text_with_few_labels.ipynb) shows how)."
    )


def _against_default(studies: Studies) -> list[Comparison]:
    records = studies.get("ablation", ())
    arms = [arm for arm in dict.fromkeys(r.study["arm"] for r in records) if not arm.startswith(OTHERS)]
    found = [c for arm in arms if arm != DEFAULT for c in _compare(records, arm, DEFAULT, None)]
    return with_holm(found) if found else []


def _variants(studies: Studies) -> str:
    found = _against_default(studies)
    if not found:
        return NOTHING
    names = forest.labels(studies["ablation"])
    clear = [c for c in found if c.p_holm < 1 - c.level]
    alone = [f"{names[c.arm]} ({c.verdict})" for c in found if c.verdict in ("better", "worse")]
    told = f"{len(clear)} of {len(found)} are shown to differ from it; before the correction {len(alone)}"
    return told + (f": {', '.join(alone)}" if alone else "")


def _ablation(studies: Studies) -> str:
    found = _against_default(studies)
    if not found:
        return NOTHING
    names = forest.labels(studies["ablation"])
    what, _ = forest.pairs(found, names)
    told = f"**{_variants(studies)}** (after Holm's correction; {forest.behind(found)}). {forest.summary(found)}"
    table = forest.table(found, names).reset_index(names=what)
    return f"{told}\n\n:::{{dropdown}} Every interval, in points\n{to_markdown(table)}:::"


def _cost() -> str:
    """Cost as measured: a row for each encoder and method, ratios to the plain model with their intervals."""
    table = _measured()
    if table is None:
        return NOTHING
    table = table[table["method"].str.contains("KL-Norm|LayerNorm|VIB|MLP")]
    shown = table[["encoder", "method", "parameters added"]].assign(
        share=table["share of parameters"].map("{:.2%}".format),
        step=[_ratio(row) for _, row in table.iterrows()],
        memory=table["memory, times plain"].map("{:.3f}".format),
    )
    names = {"share": "of the parameters", "step": "step time, times plain", "memory": "memory, times plain"}
    return to_markdown(shown.rename(columns=names))


def _measured() -> pd.DataFrame | None:
    from klnorm_lib.report import cost

    if not resources.files("klnorm_lib.studies").joinpath("cost.json").is_file():
        return None
    return cost.frame(cost.read())


def _ratio(row: pd.Series) -> str:
    return f"{row['step, times plain']:.3f} [{row['from']:.3f}, {row['to']:.3f}]"


def _cheap() -> str:
    """The verdict on cost: KL-Norm B on every encoder that was measured."""
    table = _measured()
    if table is None:
        return NOTHING
    ours = table[table["method"] == "KL-Norm B"]
    told = [
        f"{row['encoder']}: parameters +{row['share of parameters']:.2%}, step times {_ratio(row)}"
        for _, row in ours.iterrows()
    ]
    return "; ".join(told)


def _runs(studies: Studies) -> str:
    return to_markdown(counts.runs_behind(studies))


def _chance(studies: Studies) -> str:
    if not studies.get("pilot"):
        return NOTHING
    pairs = [("klnorm_slow", "plain_slow"), ("klnorm_fast", "plain_fast")]
    found = pilot.table(studies["pilot"], pairs, "tasks")
    left = found[~found["chosen"].astype(bool)]
    told = [f"{task} ({100 * row['score']:.1f} against {100 * row['constant']:.1f})" for task, row in left.iterrows()]
    return f"{', '.join(told)}: mean score of the best arm against that of a constant answer, in hundredths."


def _full() -> str:
    """The grids that wait for a cluster, with the number of their runs."""
    lines = []
    for name in grid.packaged():
        plan = grid.load(name)
        for part in (p for p in plan.parts.values() if not p.default):
            cells = sum(len(sizes) for sizes in part.tasks.values()) * len(part.encoders) * len(part.arms)
            number = len(plan.tuning([part.name])) + cells * len(part.draws)
            encoders = ", ".join(e.split("/")[-1] for e in part.encoders)
            lines.append(
                f"  - `klnorm study {name} --part {part.name}`: {number:,} runs; {', '.join(part.tasks)}; {encoders}."
            )
    return "\n".join(lines)
