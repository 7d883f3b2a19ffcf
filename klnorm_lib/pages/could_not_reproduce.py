"""The page on what we could not reproduce: the paper's claims, one by one, beside the verdicts of the records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from klnorm_lib.figures import forest
from klnorm_lib.pages import contrasts, counts, guided, pilot
from klnorm_lib.pages.claims import CLAIMS, NOTHING, SHARED, Family, Studies, answer, compared, comparisons
from klnorm_lib.pages.tables import to_markdown
from klnorm_lib.studies import names as study_names
from klnorm_lib.studies import path
from klnorm_lib.study import Record
from klnorm_lib.study.stats import Comparison, interaction, with_holm
from klnorm_lib.sweep import grid
from klnorm_lib.sweep.membership import by_study

DEFAULT, OTHERS = "beta_1e-3", ("plain", "layernorm", "vib")  # of the ablation
CONSTANTS = re.compile(r"<!-- constants: .*? -->\n*", re.S)  # for the check of typed numbers, not for readers


def page(studies: Studies | None = None) -> str:
    """The whole page in markdown; what is not recorded says so. ``studies``: by default those that are packaged."""
    studies = by_study() if studies is None else studies
    parts = {name: _claim(studies, family) for name, family in CLAIMS.items()}
    parts |= {"runs": _runs(studies), "chance": _chance(studies), "full": _full(), "ablation": _ablation(studies)}
    parts |= {"verdicts": _verdicts(studies), "cost": _cost(), "unlucky": _unlucky(studies)}
    parts |= {
        "guided_verdicts": _guided_verdicts(studies),
        "together": _together(studies),
        "guided_rates": _rates(studies),
    }
    prose = CONSTANTS.sub("", Path(__file__).with_suffix(".md").read_text("utf-8"))
    return re.sub(r"<!-- ([\w-]+) -->", lambda mark: parts[mark[1]], prose)


def _claim(studies: Studies, family: Family) -> str:
    found = comparisons(studies, family)
    if not found:
        return NOTHING
    names = forest.labels(studies[family.study])
    what, _ = forest.pairs(found, names)
    encoders = ", ".join(dict.fromkeys(str(c.encoder).split("/")[-1] for c in found))
    text = f"**{answer(found)}** (after Holm's correction; {forest.behind(found)}; {encoders}). "
    text += contrasts.summary(found) + _other_rates(studies[family.study], found, names)
    table = contrasts.table(found, names).T.reset_index(names=what)
    return f"{text}\n\n:::{{dropdown}} Every interval, in percentage points\n{to_markdown(table)}:::"


def _other_rates(records: Sequence[Record], found: Sequence[Comparison], names: Mapping[str, str]) -> str:
    """Where a clear difference is one between two learning rates as well, a sentence that says so."""
    rates = {
        (r.study["arm"], r.task["name"], r.run["size"], r.encoder["name"], r.run.get("steps")): r.run["learning_rate"]
        for r in records
        if r.study["stage"] == "final"
    }
    apart = []
    for c, setting in zip(found, forest.settings(found), strict=True):
        if c.p_holm < 1 - c.level:
            key = (c.task, c.size, c.encoder, c.setting.get("steps"))
            one, other = (rates[(arm, *key)] for arm in (c.arm, c.baseline))
            if one != other:
                apart.append(f"{names[c.arm]} and {names[c.baseline]} on {setting} ({one:g} and {other:g})")
    if not apart:
        return ""
    return f" Clear, but tuned to other learning rates, so that the difference may be theirs: {'; '.join(apart)}."


def _verdicts(studies: Studies) -> str:
    """The verdicts (a) to (e) on KL-Norm in a table: question, runs, answer, and the two outermost differences."""
    rows = []
    for letter, question, name in (
        ("a", "few labels, text: KL-Norm against plain, at the rate that most arms chose", "shared"),
        ("a", "few labels, text: KL-Norm against plain as it was tuned (see the note below)", "text"),
        ("a", "few labels, text: against the same layer without its penalty", "penalty"),
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
    return to_markdown(
        pd.DataFrame(rows, columns=["", "question", "runs", "answer", "lowest and highest, percentage points"])
    )


def _guided_verdicts(studies: Studies) -> str:
    """The five contrasts that decide on guided dropout, corrected together, and the published comparison above them."""
    published = comparisons(studies, CLAIMS["guided"])
    rows = [["As published: guided against plain with a dropout of 0.1", answer(published), _outermost(published)]]
    records = _deciding(studies)
    recorded = {(c.arm, c.baseline) for name in guided.DECISIVE for c in compared(records, *name, None)}
    found = guided.contrasts(records, [pair for pair in guided.DECISIVE if pair in recorded]) if recorded else []
    names = forest.labels(records)
    for (arm, base), question in guided.DECISIVE.items():
        of = [c for c in found if (c.arm, c.baseline) == (arm, base)]
        who = f"{names.get(arm, arm)} minus {names.get(base, base)}"
        rows.append([f"{question} ({who})", answer(of), _outermost(of)])
    return to_markdown(pd.DataFrame(rows, columns=["question", "answer", "lowest and highest, percentage points"]))


def _deciding(studies: Studies) -> list[Record]:
    return [r for r in studies.get("guided", ()) if r.study and r.study["part"] in guided.DECIDING]


def _together(studies: Studies) -> str:
    """Whether KL-Norm and guided dropout add up: the interaction in every setting, in words."""
    records = _deciding(studies)
    try:
        found = interaction(records, "klnorm_guided", "klnorm", "guided", "uniform_10")
    except LookupError:
        return NOTHING
    text = [f"{at} {contrasts.text(c)}, {c.verdict}" for c, at in zip(found, forest.settings(found), strict=True)]
    return f"Together minus the sum of their effects, in percentage points ({forest.behind(found)}): {'; '.join(text)}."


def _rates(studies: Studies) -> str:
    """Mean rate over the sites of each arm that sets rates, from its records."""
    records = _deciding(studies)
    if not records:
        return NOTHING
    table = guided.rates(records)
    shown = table[["encoder", "label", "sites", "mean", "low", "high"]]
    names = {"label": "arm", "mean": "mean rate", "low": "lowest", "high": "highest"}
    return to_markdown(shown.assign(encoder=shown["encoder"].str.split("/").str[-1]).rename(columns=names))


def _number(studies: Studies, study: str) -> str:
    return f"{len({r.hash for r in studies.get(study, ())}):,}"


def _outermost(found: Sequence[Comparison]) -> str:
    """The lowest and the highest mean difference of a family, each with its interval."""
    if not found:
        return "–"
    ordered = sorted(found, key=lambda c: c.mean)
    return " and ".join(contrasts.text(c) for c in (ordered[0], ordered[-1]))


def _unlucky(studies: Studies) -> str:
    """A warning where the plain arm does worse than at another rate, so that every arm looks good beside it."""
    found = [c for study in studies for c in comparisons(studies, Family(study, ("plain",), (SHARED,)))]
    clear = [c for c in found if c.verdict == "worse" and c.p_holm < 1 - c.level]
    if not clear:
        return ""
    text = "; ".join(f"{c.task} {contrasts.text(c)}" for c in clear)
    return (
        "**A gain over the plain arm alone is no gain.** The plain arm does worse than the same model at the learning "
        f"rate that most other arms chose: {text}, in percentage points. It was unlucky in its tuning there, and "
        "beside it every arm looks good ([chapter 08](../notebooks/08_text_with_few_labels.ipynb) shows how)."
    )


def _against_default(studies: Studies) -> list[Comparison]:
    records = studies.get("ablation", ())
    arms = [arm for arm in dict.fromkeys(r.study["arm"] for r in records) if not arm.startswith(OTHERS)]
    found = [c for arm in arms if arm != DEFAULT for c in compared(records, arm, DEFAULT, None)]
    return with_holm(found) if found else []


def _variants(studies: Studies) -> str:
    found = _against_default(studies)
    if not found:
        return NOTHING
    names = forest.labels(studies["ablation"])
    clear = [c for c in found if c.p_holm < 1 - c.level]
    alone = [f"{names[c.arm]} ({c.verdict})" for c in found if c.verdict in ("better", "worse")]
    text = f"{len(clear)} of {len(found)} are shown to differ from it; before the correction {len(alone)}"
    return text + (f": {', '.join(alone)}" if alone else "")


def _ablation(studies: Studies) -> str:
    found = _against_default(studies)
    if not found:
        return NOTHING
    names = forest.labels(studies["ablation"])
    what, _ = forest.pairs(found, names)
    text = f"**{_variants(studies)}** (after Holm's correction; {forest.behind(found)}). {contrasts.summary(found)}"
    table = contrasts.table(found, names).reset_index(names=what)
    return f"{text}\n\n:::{{dropdown}} Every interval, in percentage points\n{to_markdown(table)}:::"


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
    from klnorm_lib.pages import cost

    if not path("cost.json").is_file():
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
    text = [
        f"{row['encoder']}: parameters +{row['share of parameters']:.2%}, step times {_ratio(row)}"
        for _, row in ours.iterrows()
    ]
    return "; ".join(text)


def _runs(studies: Studies) -> str:
    return to_markdown(counts.runs_behind(studies))


def _chance(studies: Studies) -> str:
    if not studies.get("pilot"):
        return NOTHING
    pairs = [("klnorm_slow", "plain_slow"), ("klnorm_fast", "plain_fast")]
    found = pilot.table(studies["pilot"], pairs, "tasks")
    left = found[~found["chosen"].astype(bool)]
    text = [f"{task} ({100 * row['score']:.1f} against {100 * row['constant']:.1f})" for task, row in left.iterrows()]
    return f"{', '.join(text)}: mean score of the best arm against that of a constant answer, in per cent."


def _full() -> str:
    """The grids that wait for a cluster, with the number of their runs."""
    lines = []
    for name in study_names():
        plan = grid.load(name)
        for part in (p for p in plan.parts.values() if not p.default):
            settings = sum(len(sizes) for sizes in part.tasks.values()) * len(part.encoders)
            number = len(plan.tuning([part.name])) + settings * len(part.arms) * len(part.replicates)
            encoders = ", ".join(e.split("/")[-1] for e in part.encoders)
            lines.append(
                f"  - `klnorm study {name} --part {part.name}`: {number:,} runs; {', '.join(part.tasks)}; {encoders}."
            )
    return "\n".join(lines)
