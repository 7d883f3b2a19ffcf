"""The packaged measurement of cost: read, checked, as a table and as a figure. It is made by ``make bench``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import pandas as pd

from klnorm_lib.probes.cost import ratio

LABELS = {
    "plain": "plain",
    "sham": "plain again",
    "layernorm": "LayerNorm",
    "klnorm_a": "KL-Norm A",
    "klnorm_b": "KL-Norm B",
    "klnorm_c": "KL-Norm C",
    "mlp": "same-size MLP",
    "vib": "VIB",
    "mixout": "mixout",
}


def read() -> dict[str, Any]:
    """The packaged measurement, checked against its schema."""
    values = json.loads(resources.files("klnorm_lib.studies").joinpath("cost.json").read_text(encoding="utf-8"))
    check(values)
    return values


def check(values: Any) -> None:
    """Raise ``ValueError`` where ``values`` does not fit ``studies/cost.schema.json``, or rounds are not paired."""
    from jsonschema import Draft202012Validator

    schema = json.loads(resources.files("klnorm_lib.studies").joinpath("cost.schema.json").read_text(encoding="utf-8"))
    error = next(iter(sorted(Draft202012Validator(schema).iter_errors(values), key=lambda e: list(e.path))), None)
    if error is not None:
        where = ".".join(map(str, error.absolute_path)) or "the measurement itself"
        raise ValueError(f"{where}: {error.message[:200]}; it is written by `make bench` and not edited by hand")
    for model in values["models"]:
        lengths = {len(arm[clock]) for arm in model["arms"].values() for clock in ("cpu_seconds", "wall_seconds")}
        if len(lengths) > 1:
            raise ValueError(f"{model['encoder']}: arms have {sorted(lengths)} rounds, but rounds are paired")


def ratios(model: Mapping[str, Any], baseline: str = "plain", clock: str = "cpu") -> dict[str, tuple]:
    """(median, low, high) of the step time of every other arm over ``baseline``'s, paired by round, at 95 %.

    ``clock``: ``cpu`` for seconds of the processor, ``wall`` for seconds by the clock.
    """
    arms = model["arms"]
    if baseline not in arms:
        raise ValueError(f"no arm {baseline!r} was measured on {model['encoder']}; there are {', '.join(arms)}")
    key = f"{clock}_seconds"
    return {name: ratio(arm[key], arms[baseline][key]) for name, arm in arms.items() if name != baseline}


def frame(values: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each model and arm: parameters added, step time and memory, and the ratios to no method."""
    rows = []
    for model in values["models"]:
        against = ratios(model)
        plain = model["arms"]["plain"]
        for name in in_order(model["arms"]):
            arm = model["arms"][name]
            middle, low, high = against.get(name, (1.0, 1.0, 1.0))
            rows.append(
                {
                    "encoder": model["encoder"],
                    "method": LABELS.get(name, name),
                    "parameters added": arm["added_parameters"],
                    "share of parameters": arm["added_parameters"] / plain["parameters"],
                    "step, ms": 1e3 * float(pd.Series(arm["cpu_seconds"]).median()),
                    "step, times plain": middle,
                    "from": low,
                    "to": high,
                    "memory, MiB": memory(arm) / 2**20,
                    "memory, times plain": memory(arm) / memory(plain),
                }
            )
    return pd.DataFrame(rows)


def memory(arm: Mapping[str, Any]) -> int:
    """Bytes that training with this arm needs: weights, optimiser state, and the most that a step allocates."""
    return arm["state_bytes"] + arm["step_bytes"]


def in_order(arms: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Names of arms in the order of the book: plain, controls, KL-Norm, others."""
    known = [name for name in LABELS if name in arms]
    return known + sorted(set(arms) - set(known))


def draw(axes, model: Mapping[str, Any], baseline: str = "plain") -> None:
    """One model's ratios of step time on ``axes``: the median of every arm and its interval, and a line at 1."""
    from klnorm_lib.report import style

    found = ratios(model, baseline)
    names = in_order(found)[::-1]
    axes.axvline(1.0, color=style.INK, linewidth=1)
    for place, name in enumerate(names):
        middle, low, high = found[name]
        colour = style.PALETTE[0] if name.startswith("klnorm") else style.PALETTE[1]
        marker = style.MARKERS[0] if name.startswith("klnorm") else style.MARKERS[1]
        axes.plot([low, high], [place, place], color=colour)
        axes.plot(middle, place, marker, color=colour)
    axes.set_yticks(range(len(names)), [LABELS.get(name, name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_title(f"{model['encoder']}, width {model['width']}")
