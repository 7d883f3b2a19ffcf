"""The committed sections: whole, consistent, made by the script beside them, and contrasts."""

import copy
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from klnorm_lib import studies
from klnorm_lib.figures.landscape import SCHEMES
from klnorm_lib.pages import landscape

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def values():
    return landscape.read()


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("benchmark_landscape", ROOT / "benchmarks" / "landscape.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_record_is_that_of_the_script(values, script):
    assert studies.path("landscape.json").stat().st_size < 2**20
    assert {n: (s["unit"], s["equal_length"]) for n, s in values["schemes"].items()} == script.SCHEMES
    assert set(values["schemes"]) == set(SCHEMES) == set(landscape.SHORT)
    assert [m["name"] for m in values["models"]] == ["masked language model", f"classifier of {script.TASK}"]
    for model in values["models"]:
        assert [a for a in model["axis"] if a > 0] == list(script.RADII)
        draws = {}
        for part in model["profiles"]:
            draws.setdefault((part["fisher"], part["scheme"], part["set"]), []).append(part["draw"])
        assert all(sorted(found) == list(range(script.FULL["draws"])) for found in draws.values())
        wanted = {("none", "all", "all")} | {("pretraining", s, n) for s in script.SCHEMES for n in script.SETS}
        if "task" in model["fishers"]:
            wanted |= {("task", s, n) for s in script.BY_TASK for n in script.SETS[:2]}
        assert set(draws) == wanted
        assert model["curvature"]["probes"] == script.FULL["probes"]
        assert {len(s[k]) for s in model["curvature"]["sets"] for k in ("trace", "scaled")} == {script.FULL["probes"]}
        assert len(model["sharpness"]["sets"]) == 12


def test_fair_sets_of_the_record_are_fair(values):
    for model in values["models"]:
        for units in model["counts"].values():
            assert all(len(set(sets.values())) == 1 for unit, sets in units.items() if unit != "tensors")
        table = landscape.frame(model)
        for scheme, how in values["schemes"].items():
            norms = table.loc[table["scheme"] == scheme, "norm"]
            assert (np.ptp(norms) < 1e-3 * norms.mean()) == how["equal_length"]


def test_what_the_record_says_of_itself(values):
    text = json.dumps(values)
    assert "/root" not in text
    assert "/work" not in text
    for model in values["models"]:
        assert len(model["encoder"]["sha256"]) == 64
        assert model["on"].get("sha256") or model["on"]["checksums"]
    assert values["seconds"]["processor"] > 0
    assert {"torch", "python", "klnorm_lib"} <= set(values["versions"])


def test_rises_are_means_of_both_sides(values):
    model = values["models"][0]
    row = landscape.frame(model).iloc[-1]
    part, axis = model["profiles"][-1], model["axis"]
    both = [part["losses"][axis.index(sign * row["radius"])] for sign in (1, -1)]
    assert row["loss"] == pytest.approx(np.mean(both))
    assert row["rise"] == pytest.approx(np.mean(both) - part["losses"][landscape.origin(axis)])


def made(**rises):
    """A model with the rises given, by set a list over directions, at one distance."""
    parts = [
        {
            "fisher": "pretraining",
            "scheme": "counts",
            "set": name,
            "draw": k,
            "norm": 1.0,
            "losses": [2 + r, 2.0, 2 + r],
        }
        for name, values in rises.items()
        for k, r in enumerate(values)
    ]
    return {"name": "made", "axis": [-0.5, 0.0, 0.5], "fishers": {"pretraining": {}}, "profiles": parts}


def test_contrasts_are_paired_by_direction():
    table = landscape.frame(made(top=[1.1, 2.1, 3.13], bottom=[1.0, 2.0, 3.0], random=[3.0, 1.0, 2.0]))
    (row,) = landscape.contrast(table, "counts", "top", "bottom").itertuples()
    assert row.mean == pytest.approx(0.11)
    assert 0.06 < row.low < 0.11  # the directions differ much, the differences hardly
    assert (row.verdict, row.directions) == ("steeper", 3)
    assert landscape.contrast(table, "counts", "bottom", "top")["verdict"].tolist() == ["flatter"]
    assert landscape.contrast(table, "counts", "top", "random")["verdict"].tolist() == ["cannot tell"]
    verdicts = landscape.verdicts(
        {"models": [made(top=[1.0, 2], bottom=[1.0, 2], random=[1.0, 3])], "schemes": {}}, 0.5
    )
    assert verdicts["sets"].tolist() == ["top - bottom", "top - random", "bottom - random"]
    with pytest.raises(LookupError, match="no section moves 'top'"):
        landscape.contrast(table, "within_length", "top", "bottom")


FORGERIES = {
    "loss": lambda v: v["models"][0]["profiles"][3]["losses"].__setitem__(len(v["models"][0]["axis"]) // 2, 9.0),
    "fewer": lambda v: v["models"][0]["profiles"][0]["losses"].pop(),
    "length": lambda v: [p for p in v["models"][0]["profiles"] if "length" in p["scheme"]][0].update(norm=1.0),
    "no origin": lambda v: v["models"][0]["axis"].__setitem__(len(v["models"][0]["axis"]) // 2, 0.01),
    "surface": lambda v: v["models"][0]["surfaces"][0]["losses"].pop(),
    "middle": lambda v: v["models"][0]["surfaces"][0]["losses"][4].__setitem__(4, 9.0),
    "word": lambda v: v["models"][0]["sharpness"]["sets"][0].update(worst="high"),
    "extra": lambda v: v.update(note="by hand"),
}


@pytest.mark.parametrize("fault", FORGERIES)
def test_a_forged_record_is_refused(values, fault):
    forged = copy.deepcopy(values)
    FORGERIES[fault](forged)
    with pytest.raises(ValueError):  # noqa: PT011  the words differ, each is about its own place
        landscape.check(forged)
    landscape.check(values)


def test_models_are_found_by_a_word(values):
    assert landscape.model_of(values, "masked") is values["models"][0]
    with pytest.raises(ValueError, match="0 models"):
        landscape.model_of(values, "speech")
