"""What a dead worker had under way is done again; a run that kills every worker is given up, alone."""

import multiprocessing
import os
import signal

import pytest

from klnorm_lib.study import Run, StudyError
from klnorm_lib.sweep import engines, packing, workers
from klnorm_lib.sweep.worker import Job, Outcome


class Mortal:
    """An engine of which a worker dies when it is handed certain runs; two at a time."""

    name, own_process = "mortal", True

    def __init__(self, deadly, deaths):
        self.left = dict.fromkeys(deadly, deaths)
        self.batches = []

    def stream(self, call, batches):
        batches = list(batches)
        self.batches.append([job.number for batch in batches for job in batch])
        for batch in batches:
            if self.left.get(batch[0].number, 0) > 0:
                self.left[batch[0].number] -= 1
                raise RuntimeError("a worker was killed")
            yield [Outcome(job.number, "finished", hash=str(job.number)) for job in batch]


@pytest.fixture
def at_work(monkeypatch):
    def start(engine):
        found = workers.Workers("local", 2, 1, None, False, None)
        found._engine = engine
        return found

    monkeypatch.setattr(workers, "lost", lambda job, options, reason: Outcome(job.number, "failed", message=reason))
    return start


def jobs(count):
    return [Job(i, Run("trec", "klnorm-nano", seed=i, split_seed=i)) for i in range(count)]


def test_a_death_repeats_what_was_under_way_and_nothing_else(at_work):
    engine = Mortal([2], deaths=1)
    found = list(at_work(engine).outcomes(jobs(5), say=lambda text: None))
    assert sorted(o.number for o in found) == [0, 1, 2, 3, 4]
    assert {o.status for o in found} == {"finished"}
    assert engine.batches[0] == [0, 1, 2, 3, 4]
    assert all(len(batch) == 1 for batch in engine.batches[1:])  # the suspects go one by one
    assert not {0, 1} & {n for batch in engine.batches[1:] for n in batch}


def test_a_run_that_kills_its_worker_again_and_again_fails_alone(at_work):
    said = []
    found = {o.number: o for o in at_work(Mortal([1], deaths=99)).outcomes(jobs(4), said.append)}
    assert [found[i].status for i in range(4)] == ["finished", "failed", "finished", "finished"]
    assert "a worker was killed" in found[1].message
    assert said[0].startswith("a worker died (RuntimeError)")


def test_an_engine_that_gives_nothing_back_is_reported(at_work):
    with pytest.raises(StudyError, match="mortal engine lost its workers"):
        list(at_work(Mortal(range(40), deaths=99)).outcomes(jobs(40), say=lambda text: None))


def test_runs_that_share_rows_stand_together_and_frozen_ones_travel_together():
    runs = [
        Run(task, "klnorm-nano", method, size=size, seed=s, split_seed=s)
        for method in ("plain", "frozen", "klnorm")
        for s in range(3)
        for size in (20, 40)
        for task in ("sst2", "trec")
    ]
    found = workers.batches([Job(i, run) for i, run in enumerate(runs)], width=2)
    assert sorted(job.number for batch in found for job in batch) == list(range(len(runs)))
    trained = [batch for batch in found if batch[0].run.method != "frozen"]
    assert {len(batch) for batch in trained} == {1}
    rows = [(p[0].run.task, p[0].run.size, p[0].run.split_seed) for p in trained]
    assert all(a == b for a, b in zip(rows[::2], rows[1::2], strict=True))  # plain and klnorm, one after the other
    together = [batch for batch in found if batch[0].run.method == "frozen"]
    assert [len(batch) for batch in together] == [3, 3, 3, 3]
    assert all(len({job.run.task for job in batch}) == 1 for batch in together)
    alone = workers.batches([Job(i, run) for i, run in enumerate(runs)], width=1)
    assert {len(batch) for batch in alone} == {1}


def test_slots_go_round_the_cards_and_share_their_memory():
    found = [packing.assign(slot, 5, ("0", "3")) for slot in range(5)]
    assert [card for card, _ in found] == ["0", "3", "0", "3", "0"]
    assert [share / packing.SHARE for _, share in found] == pytest.approx([1 / 3, 1 / 2, 1 / 3, 1 / 2, 1 / 3])
    assert packing.assign(0, 1, ("7",)) == ("7", packing.SHARE)
    for card in ("0", "3"):
        assert sum(share for name, share in found if name == card) == pytest.approx(packing.SHARE)
    with pytest.raises(ValueError, match="slot 2 of 2"):
        packing.assign(2, 2, ("0",))
    with pytest.raises(ValueError, match="0 cards"):
        packing.assign(0, 2, ())


def test_visible_cards_are_those_the_environment_names():
    assert packing.visible_cards({"CUDA_VISIBLE_DEVICES": "2, GPU-ab"}) == ("2", "GPU-ab")
    assert packing.visible_cards({"CUDA_VISIBLE_DEVICES": ""}) == ()


def hold_a_slot(folder, pipe):
    pipe.send(packing.take_slot(packing.Packing(2, folder, ("0",))))
    pipe.recv()


def test_a_killed_process_gives_its_slot_back(tmp_path):
    def start():
        here, there = forked.Pipe()
        process = forked.Process(target=hold_a_slot, args=(str(tmp_path), there), daemon=True)
        process.start()
        return process, here.recv(), here

    forked = multiprocessing.get_context("fork")
    first, second = start(), start()
    assert (first[1], second[1]) == (0, 1)
    os.kill(first[0].pid, signal.SIGKILL)
    first[0].join()
    third = start()
    assert third[1] == 0
    for process, _, pipe in (second, third):
        pipe.send("go")
        process.join()


def test_a_process_uses_its_card_before_cuda_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(packing, "_taken", {})
    config = packing.Packing(3, str(tmp_path), ("5", "6"))
    packing.use_card(config)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    packing.use_card(config)  # it has a slot
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    packing.use_card(packing.Packing(3, str(tmp_path / "none"), ()))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "slurm"}, "local, dask, ray"),
        ({"name": "local", "jobs": 0}, "at least 1"),
        ({"name": "local", "scheduler": "tcp://127.0.0.1:1"}, "--engine dask"),
    ],
)
def test_an_engine_that_there_is_not(options, message):
    with pytest.raises(StudyError, match=message), engines.start(**options):
        pass


def test_a_missing_library_is_named(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"klnorm-lib\[ray\]"), engines.start("ray"):
        pass
