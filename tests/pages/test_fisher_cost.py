"""The committed cost of the Fisher information: whole, exact, within its bound, and made by the benchmark beside it."""

import copy
import importlib
import sys
from pathlib import Path

import pytest
import torch

from klnorm_lib.pages import fisher_cost

ROOT = Path(__file__).parents[2]
ALLOWED, AIM = 2.2, 1.5
WITHOUT_AXIS = "t5-2x256"  # part of it takes a second way
OURS = ("hooks", "func", "loop")


@pytest.fixture(scope="module")
def values():
    return fisher_cost.read()


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("fisher")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_committed_measurement_has_every_model_and_arm_of_the_benchmark(values, benchmark):
    assert [m["model"] for m in values["models"]] == list(benchmark.MODELS)
    for model in values["models"]:
        _, loss, rows, tokens = benchmark.MODELS[model["model"]]
        assert (model["loss"], model["rows"], model["tokens"]) == (loss, rows, tokens)
        assert set(benchmark.OURS) | set(benchmark.peers.PEERS) == set(model["arms"]) | set(model["missing"])


def test_hooks_stay_within_their_bound(values):
    for model in values["models"]:
        found = fisher_cost.ratios(model)
        if model["model"] != WITHOUT_AXIS:
            assert found["hooks"][2] < ALLOWED
            assert found["hooks_steady"][0] < AIM
        assert found["sham"][1] <= 1 <= found["sham"][2]


def test_every_way_of_ours_is_exact(values):
    for model in values["models"]:
        for way in OURS:
            said = model["arms"][way]["exactness"]
            assert said["exact"] == said["tensors"]
            assert said["worst"] < 1e-5
            assert said["left_out"] == []


def test_hooks_hold_less_than_a_gradient_for_every_sequence(values):
    for model in values["models"]:
        arms, gradients = model["arms"], 4 * model["parameters"] * model["rows"]
        assert arms["hooks"]["peak_bytes"] < gradients
        assert arms["hooks_steady"]["peak_bytes"] < 1.5 * arms["ordinary"]["peak_bytes"]


def test_table_has_a_row_for_every_arm_but_the_baseline(values):
    table = fisher_cost.frame(values)
    assert len(table) == sum(len(m["arms"]) - 1 for m in values["models"])
    assert (table.low <= table.time).all()
    assert (table.time <= table.high).all()
    against = fisher_cost.frame(values, "ordinary_selected")
    assert "ordinary backward pass" in set(against.way)


def test_what_was_edited_is_refused(values):
    broken = copy.deepcopy(values)
    broken["models"][0]["arms"]["hooks"]["cpu_seconds"].pop()
    with pytest.raises(ValueError, match="rounds are paired|too short"):
        fisher_cost.check(broken)
    del broken["models"][0]["arms"]["loop"]
    with pytest.raises(ValueError, match="make bench"):
        fisher_cost.check(broken)


def test_benchmark_measures(benchmark, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: pytest.fail("the threads are those of main"))
    monkeypatch.setitem(benchmark.MODELS, "small", (lambda: benchmark.bert(60, 1, 8, 2), "masked", 3, 6))
    monkeypatch.setattr(benchmark.peers, "PEERS", {"absent": _absent})
    entry = benchmark.measure("small", 6)
    assert entry["missing"] == {"absent": "ModuleNotFoundError: No module named 'absent_library'"}
    assert set(entry["arms"]) == set(benchmark.OURS)
    assert all(entry["arms"][way]["exactness"]["worst"] < 1e-5 for way in OURS)
    made = fisher_cost.read() | {"models": [entry]}
    fisher_cost.check(made)


def _absent(model, loss, batch):
    import absent_library

    return absent_library
