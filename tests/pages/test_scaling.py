"""Time against workers: schedules by hand, Graham's bounds, and what is counted."""

from types import SimpleNamespace

import numpy as np
import pytest

from klnorm_lib.pages import scaling


def test_a_schedule_by_hand():
    assert scaling.makespan([[3, 2, 2, 1]], 1) == 8
    assert scaling.makespan([[3, 2, 2, 1]], 2) == 4  # 3 + 1 beside 2 + 2
    assert scaling.makespan([[1, 1, 3]], 2) == 4  # the long one comes last
    assert scaling.makespan([[1, 2], [4]], 8) == 6  # the second stage waits for the first
    assert scaling.makespan([], 3) == 0
    with pytest.raises(ValueError, match="at least one worker"):
        scaling.makespan([[1]], 0)


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 50])
def test_the_time_lies_between_the_bounds(workers):
    rng = np.random.default_rng(0)
    for _ in range(20):
        stages = [rng.exponential(size=rng.integers(1, 40)).tolist() for _ in range(2)]
        low, high = scaling.bounds(stages, workers)
        assert low - 1e-9 <= scaling.makespan(stages, workers) <= high + 1e-9
    one = sum(map(sum, stages))
    assert scaling.bounds(stages, 1) == pytest.approx((one, one))


def test_every_finished_run_of_a_study_is_counted_once():
    def record(hash, stage, seconds, status="finished"):
        told = None if stage is None else {"stage": stage}
        return SimpleNamespace(hash=hash, study=told, status=status, time={"total_seconds": seconds})

    found = [record("b", "final", 3.0), record("a", "tuning", 1.0), record("a", "tuning", 1.0)]
    found += [record("c", "final", 9.0, "failed"), record("d", None, 5.0), record("e", "final", 2.0)]
    assert scaling.stages(found) == [[1.0], [3.0, 2.0]]


def test_the_engines_gave_the_same_records():
    rows = scaling.engine_rows()
    assert {row["engine"] for row in rows} == {"local", "dask", "ray"}
    assert len({row["records"] for row in rows}) == 1
    assert all(row["processor_seconds"] > 0 and row["runs"] == rows[0]["runs"] for row in rows)
