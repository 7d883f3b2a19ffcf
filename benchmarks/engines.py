"""The smoke study on every engine with one and two workers; writes klnorm_lib/studies/engines.json.

Run it on an otherwise idle machine: seconds on the clock mean nothing on a busy one, so the load at the start is
recorded beside them. Processor seconds, of the driver and of all processes below it, depend little on the load.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from klnorm_lib import studies
from klnorm_lib.study import machine, read_records
from klnorm_lib.sweep.engines import ENGINES
from klnorm_lib.sweep.index import digest

TARGET = studies.path("engines.json")
STUDY = "smoke"


def processor_seconds(process: psutil.Process, seen: dict[tuple[int, float], float]) -> None:
    """Note the processor time of a process and of all below it, by process: those that end keep their last value."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return
    for member in family:
        try:
            times = member.cpu_times()
            seen[member.pid, member.create_time()] = times.user + times.system
        except psutil.Error:
            continue


def measure(engine: str, jobs: int) -> dict:
    """One study from nothing: seconds on the clock and of the processor, and the checksum of the records."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / f"{STUDY}.jsonl"
        words = ["study", STUDY, "--engine", engine, "--jobs", str(jobs), "--records", str(records)]
        begun = time.monotonic()
        driver = subprocess.Popen([sys.executable, "-m", "klnorm_lib", *words], stderr=subprocess.DEVNULL)
        seen: dict[tuple[int, float], float] = {}
        while driver.poll() is None:
            processor_seconds(psutil.Process(driver.pid), seen)
            time.sleep(0.1)
        wall = time.monotonic() - begun
        if driver.returncode:
            raise RuntimeError(f"klnorm {' '.join(words)} ended with {driver.returncode}")
        found = read_records(records)
    return {
        "engine": engine,
        "jobs": jobs,
        "runs": len({r.hash for r in found}),
        "wall_seconds": round(wall, 2),
        "processor_seconds": round(sum(seen.values()), 2),
        "run_seconds": round(sum(r.time["total_seconds"] for r in found), 2),
        "records": digest(found),
        "load": round(load, 2),
    }


def main() -> None:
    """Measure all and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args()
    rows = []
    for engine in ENGINES:
        for jobs in given.jobs:
            rows.append(measure(engine, jobs))
            print(json.dumps(rows[-1]), flush=True)
    found = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "study": STUDY,
        "versions": machine.versions(),
        "hardware": {k: v for k, v in machine.hardware().items() if k != "threads"},
        "rows": rows,
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
