"""What was chosen, out of what, and whether it lies on an edge."""

import pytest

from klnorm_lib.pages import tuning
from tests.study.simulated import record

RATES = [{"learning_rate": rate} for rate in (1e-4, 3e-4, 1e-3)]
PAIRS = [{"learning_rate": rate, "beta": beta} for rate in (1e-4, 3e-4) for beta in (0.1, 0.001)]


def chosen_in(arm, trial, grid, task="t", stage="final"):
    made = record(arm, 0, 0.5, task)
    made.study |= {"trial": trial, "trials": len(grid), "grid": grid, "stage": stage}
    made.run["encoder"] = "e"
    return made


def test_edges_are_flagged_and_tuning_runs_are_passed_over():
    records = [
        chosen_in("plain", RATES[0], RATES, stage="tuning"),
        chosen_in("plain", RATES[1], RATES),
        chosen_in("plain", RATES[1], RATES),
        chosen_in("plain", RATES[2], RATES, task="u"),
        chosen_in("klnorm", PAIRS[1], PAIRS),
    ]
    found = tuning.chosen(records)
    assert list(found["task"]) == ["t", "u", "t", "t"]
    assert list(found["edge"]) == [False, True, True, True]
    assert found["tried"].iloc[3] == [0.001, 0.1]
    table = tuning.table(found)
    assert table.loc["plain", "t"] == "rate 0.0003"
    assert table.loc["plain", "u"] == "rate 0.001*"
    assert table.loc["klnorm", "t"] == "rate 0.0001*, beta 0.001*"
    assert table.loc["klnorm", "u"] == "–"
    assert list(table["trials"]) == [3, 4]
    words = tuning.in_words(found)
    assert words.startswith("3 or 4 trials for every tuned arm.")
    assert "three or more, 1 of 2 lie on an edge" in words
    assert "plain 1." in words
    assert words.endswith("2 values were chosen out of two, which are edges both.")


def test_one_trial_is_no_edge_and_words_are_no_numbers():
    kinds = [{"kind": "layer"}, {"kind": "batch"}]
    found = tuning.chosen([chosen_in("norm", kinds[0], kinds), chosen_in("fixed", {"p": 0.5}, [{"p": 0.5}])])
    assert not found["edge"].any()
    assert tuning.in_words(tuning.chosen([])) == "No arm was tuned."


def test_leads_are_differences_of_mean_validation_scores():
    scores = {1e-4: (0.5, 0.7), 3e-4: (0.6, 0.8), 1e-3: (0.7, 0.6)}
    records = []
    for trial in RATES:
        for value in scores[trial["learning_rate"]]:
            made = chosen_in("plain", trial, RATES, stage="tuning")
            made.validation = {"accuracy": value}
            records.append(made)
    one_missing = [chosen_in("klnorm", trial, PAIRS, stage="tuning") for trial in PAIRS[:3]]
    found = tuning.leads([*records, *one_missing, chosen_in("plain", RATES[1], RATES)])
    assert list(found["arm"]) == ["plain"]
    row = found.iloc[0]
    assert (row["best"], row["second"]) == pytest.approx((0.7, 0.65))
    assert row["lead"] == pytest.approx(0.05)
    assert (row["rows"], row["row"]) == (40, 1 / 40)
