"""The smoke study on every engine: the same records, none lost and none repeated when a process is killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import psutil
import pytest
from distributed import KilledWorker
from joblib.externals.loky.process_executor import TerminatedWorkerError

from klnorm_lib import studies
from klnorm_lib.study import append, read_records
from klnorm_lib.study.runner import failed
from klnorm_lib.sweep import engines, grid
from klnorm_lib.sweep.execution import Options, execute, sweep
from klnorm_lib.sweep.index import lasting

RUNS = 7
WORKERS = {  # what the command line of a process that does the runs holds
    "local": "loky.backend.popen_loky",
    "dask": "multiprocessing.spawn",
}


def lasting_by_key(path):
    """Every record of a file by hash and arm, without what is of the moment."""
    found = {}
    for record in read_records(path):
        key = record.hash, record.study["arm"], record.study["stage"]
        assert key not in found, f"{key} is recorded twice"
        found[key] = lasting(record)
    return found


def lines(path):
    return path.read_bytes().splitlines(keepends=True) if path.is_file() else []


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The smoke study with one replicate in place of three: four tuning runs, and a final run of each of three arms."""
    text = studies.path("smoke.yaml").read_text(encoding="utf-8")
    file = tmp_path_factory.mktemp("study") / "smoke.yaml"
    file.write_text(text.replace("draws: 3", "draws: 1"), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def reference(smoke, tmp_path_factory):
    """The study in this process, one run after another."""
    records = tmp_path_factory.mktemp("smoke") / "smoke.jsonl"
    summary = sweep(smoke, records, progress=False)
    assert (summary.planned, summary.made, summary.complete) == (RUNS, RUNS, True)
    return lasting_by_key(records)


class Killer(threading.Thread):
    """Kills the largest worker of this process as soon as ``records`` holds a record, as want of memory would."""

    def __init__(self, records: Path, mark: str) -> None:
        super().__init__(daemon=True)
        self.records, self.mark, self.killed = records, mark, None

    def run(self) -> None:
        while not lines(self.records):
            time.sleep(0.02)
        while self.killed is None:
            found = []
            for process in psutil.Process().children(recursive=True):
                try:
                    if self.mark in " ".join(process.cmdline()):
                        found.append((process.memory_info().rss, process))
                except psutil.Error:
                    continue
            if found:
                victim = max(found, key=lambda pair: pair[0])[1]
                victim.kill()
                self.killed = victim.pid


@pytest.mark.parametrize("engine", WORKERS)
def test_engines_agree_though_a_worker_is_killed(engine, smoke, reference, tmp_path):
    records = tmp_path / "smoke.jsonl"
    killer = Killer(records, WORKERS[engine])
    killer.start()
    summary = sweep(smoke, records, engine=engine, jobs=2, progress=False)
    assert killer.killed is not None
    assert (summary.planned, summary.made, summary.failures) == (RUNS, RUNS, [])
    assert lasting_by_key(records) == reference


@pytest.mark.parametrize("engine", WORKERS)
def test_an_engine_reports_a_task_that_kills_its_worker_and_goes_on(engine):
    once = {"distributed.scheduler.allowed-failures": 0}
    with dask.config.set(once), engines.start(engine, 2) as running:
        with pytest.raises((TerminatedWorkerError, KilledWorker)):
            list(running.stream(os._exit, [1]))
        assert sorted(running.stream(abs, [-1, -2, -3])) == [1, 2, 3]


def test_ray_gives_the_same_records(smoke, reference, tmp_path):
    summary = sweep(smoke, tmp_path / "smoke.jsonl", engine="ray", jobs=2, progress=False)
    assert (summary.planned, summary.made, summary.failures) == (RUNS, RUNS, [])
    assert lasting_by_key(tmp_path / "smoke.jsonl") == reference


def test_a_killed_driver_loses_what_was_under_way_and_nothing_else(smoke, reference, tmp_path):
    records = tmp_path / "smoke.jsonl"
    words = [sys.executable, "-m", "klnorm_lib", "study", str(smoke), "--records", str(records)]
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(lines(records)) < 2:
            assert driver.poll() is None, "the study ended before it was killed"
            time.sleep(0.02)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    before = lines(records)
    assert 2 <= len(before) < RUNS
    summary = sweep(smoke, records, progress=False)
    assert (summary.planned, summary.found, summary.made) == (RUNS, len(before), RUNS - len(before))
    assert lines(records)[: len(before)] == before
    assert lasting_by_key(records) == reference


def test_a_run_in_a_notebook_gives_the_same_record_and_stays_as_evidence(reference, tmp_path):
    item = next(item for item in grid.load("smoke").tuning() if item.study["arm"] == "klnorm_b")
    records, folder = tmp_path / "r.jsonl", tmp_path / "r.notebooks"
    assert execute([item], records, Options(notebooks=folder, progress=False)).made == 1
    ((key, record),) = lasting_by_key(records).items()
    assert reference[key] == record
    (notebook,) = folder.glob("*.ipynb")
    assert notebook.name == f"topic_shift-40-tuning-klnorm_b-100-100-{key[0][:12]}.ipynb"
    cells = json.loads(notebook.read_text())["cells"]
    assert any("injected-parameters" in cell["metadata"].get("tags", ()) for cell in cells)
    shown = "".join(str(output) for cell in cells for output in cell.get("outputs", ()))
    assert "klnorm run --task topic_shift" in shown
    assert key[0] in shown
    assert execute([item], records, Options(notebooks=folder, progress=False)).found == 1


@pytest.mark.parametrize("recorded", [True, False])
def test_a_failure_in_a_notebook_is_reported(recorded, tmp_path, monkeypatch):
    """With the record that the notebook left, or if it left none, with what stopped it."""
    import papermill

    item = grid.load("smoke").tuning()[0]

    def execute_notebook(source, out, parameters, **options):
        if recorded:
            append(parameters["record_file"], failed(item.run, "NotFiniteError", "the loss is NaN"))
        raise papermill.PapermillExecutionError(0, 1, "", "DeadKernelError", "the kernel died", [])

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    records = tmp_path / "r.jsonl"
    summary = execute([item], records, Options(notebooks=tmp_path / "notebooks", progress=False))
    assert ("NotFiniteError" if recorded else "the kernel died") in summary.failures[0].message
    assert records.is_file() == recorded
