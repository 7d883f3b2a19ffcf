"""The committed measurement of cost: whole, counted right, and made by the benchmark that is committed beside it."""

import copy
import importlib.util
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from klnorm_lib import methods
from klnorm_lib.figures import cost as drawn
from klnorm_lib.methods.counting import added_parameters
from klnorm_lib.pages import cost
from tests import zoo

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def values():
    return cost.read()


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_cost", ROOT / "benchmarks" / "cost.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_measurement_has_every_model_and_arm_of_the_benchmark(values, benchmark):
    assert {m["encoder"]: tuple(m["arms"]) for m in values["models"]} == {
        name: tuple(sorted(how["arms"])) for name, how in benchmark.MODELS.items()
    }
    for model in values["models"]:
        assert {name: arm["method"] for name, arm in model["arms"].items()} == {
            name: json.loads(json.dumps(methods.to_dict(benchmark.ARMS[name]))) for name in model["arms"]
        }
        rounds = benchmark.MODELS[model["encoder"]]["rounds"]
        assert {len(arm["cpu_seconds"]) for arm in model["arms"].values()} == {rounds}


def test_measured_parameters_are_those_counted(values):
    for model in values["models"]:
        plain = model["arms"]["plain"]["parameters"]
        for arm in model["arms"].values():
            counted = added_parameters(methods.from_dict(arm["method"]), model["width"], model["outputs"])
            assert arm["added_parameters"] == counted == arm["parameters"] - plain


def test_weights_and_their_moments_are_the_memory_of_the_state(values):
    for model in values["models"]:
        for name, arm in model["arms"].items():
            least = 3 * 4 * arm["parameters"]
            assert least <= arm["state_bytes"] < 1.4 * least, name
            assert arm["step_bytes"] >= 4 * arm["parameters"] * 0.9, "gradients are allocated in a step"


def test_every_ratio_has_an_interval_and_plain_is_one(values):
    table = cost.frame(values)
    assert ((table["from"] <= table["step, times plain"]) & (table["step, times plain"] <= table["to"])).all()
    assert (table[table["method"] == "plain"]["step, times plain"] == 1).all()
    for model in values["models"]:
        against = cost.ratios(model, "layernorm")
        assert set(against) == set(model["arms"]) - {"layernorm"}
        with pytest.raises(ValueError, match="no arm 'swa'"):
            cost.ratios(model, "swa")


def test_a_figure_shows_every_arm(values):
    figure, axes = plt.subplots()
    drawn.draw(axes, cost.ratios(values["models"][0]), cost.LABELS, "title")
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(shown) == sorted(cost.LABELS[name] for name in values["models"][0]["arms"] if name != "plain")
    plt.close(figure)


def test_what_does_not_fit_the_schema_is_refused(values):
    broken = copy.deepcopy(values)
    del broken["models"][0]["arms"]["plain"]
    with pytest.raises(ValueError, match="plain"):
        cost.check(broken)
    uneven = copy.deepcopy(values)
    uneven["models"][0]["arms"]["plain"]["cpu_seconds"].pop()
    with pytest.raises(ValueError, match="paired"):
        cost.check(uneven)


def test_the_benchmark_measures_models_that_share_their_encoder(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "build", lambda name: zoo.build("bert", num_labels=2))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: pytest.fail("the threads are those of main"))
    made = benchmark.measure("small", 2, 8, 6, tuple(benchmark.ARMS))
    for name, arm in made["arms"].items():
        assert arm["added_parameters"] == added_parameters(benchmark.ARMS[name], zoo.WIDTH, 2), name
        assert len(arm["cpu_seconds"]) == 6
    models = benchmark.arms(zoo.build("bert", num_labels=2), ("plain", "mixout"))
    first, second = (model.bert for model, _ in models.values())
    assert all(a is b for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert models["plain"][0].classifier.weight is not models["mixout"][0].classifier.weight
