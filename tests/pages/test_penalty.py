"""The KL read from records, and what stands beside it."""

import math
from types import SimpleNamespace

import pytest

from klnorm_lib import study
from klnorm_lib.pages import penalty


def record(evaluations, selected=None, **fields):
    method = {"name": "klnorm", "fields": {"form": "B", "beta": 0.01, "schedule": "constant", **fields}}
    steps = [{"step": step, "penalty": penalty, "train_loss": loss} for step, penalty, loss in evaluations]
    return SimpleNamespace(method=method, evaluations=steps, selected={"step": selected})


def test_a_constant_price_is_divided_out():
    run = record([(10, 0.02, 1.0), (20, 0.05, 0.5)], selected=10)
    assert penalty.kl(run) == pytest.approx(5.0)
    assert penalty.kl(run, at="tested") == pytest.approx(2.0)
    assert penalty.cross_entropy(run) == pytest.approx(0.45)
    assert penalty.cross_entropy(run, at="tested") == pytest.approx(0.98)


def test_a_growing_price_is_averaged_over_the_steps_before_the_evaluation():
    run = record([(2, 0.01, 1.0), (4, 0.04, 1.0)], selected=4, schedule="linear", warmup_steps=4)
    price = [0.01 * min(1.0, step / 4) for step in range(4)]
    assert penalty.kl(run) == pytest.approx(0.04 / (sum(price[2:]) / 2))
    assert penalty.kl(record([(1, 0.0, 1.0)], schedule="linear", warmup_steps=4)) is None  # the first step is free


@pytest.mark.parametrize("fields", [{"beta": 0.0}, {"beta": None}, {"free_bits": 0.05}])
def test_no_kl_where_the_penalty_does_not_tell_it(fields):
    assert penalty.kl(record([(10, 0.02, 1.0)], **fields)) is None


def test_a_run_without_training_or_penalty_has_no_kl():
    assert penalty.kl(record([])) is None
    assert penalty.cross_entropy(record([])) is None
    assert penalty.kl(record([(10, None, 1.0)])) is None
    assert penalty.cross_entropy(record([(10, None, 1.0)])) == 1.0


def test_another_place_is_refused():
    with pytest.raises(ValueError, match="at='best' is unknown; choose one of last, tested"):
        penalty.kl(record([(10, 0.02, 1.0)]), at="best")


SMALL = dict(task="topic_shift", encoder="klnorm-nano", size=30, evaluations=1, batch_size=4, test_rows=10, ood=False)


def test_prices_too_small_to_move_a_weight_tell_the_same_kl():
    asked = dict(**SMALL, steps=3, learning_rate=1e-2, method="klnorm")
    runs = [study.run(study.Run(**asked, method_args={"beta": beta}), progress=False) for beta in (1e-9, 1e-8)]
    low, high = (penalty.kl(run) for run in runs)
    assert low > 0
    assert math.isclose(low, high, rel_tol=1e-3)


def test_frame_has_a_row_for_each_final_run():
    assert penalty.frame([]).empty
    one = study.run(study.Run(**SMALL, steps=2, method="vib", method_args={"schedule": "constant"}), progress=False)
    frozen = {name: value for name, value in SMALL.items() if name not in ("evaluations", "batch_size")}
    other = study.run(study.Run(**frozen, method="frozen"), progress=False)
    for arm, run in {"vib": one, "frozen": other}.items():
        run.study = {"arm": arm, "label": arm.upper(), "stage": "final"}
    table = penalty.frame([one, other])
    assert list(table["family"]) == ["VIB", "frozen"]
    assert table["kl"].notna().tolist() == [True, False]
    assert list(table["score"]) == [one.test["accuracy"], other.test["accuracy"]]
    one.study["stage"] = "tuning"
    assert list(penalty.frame([one, other])["arm"]) == ["frozen"]
