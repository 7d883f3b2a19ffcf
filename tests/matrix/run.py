"""Every check on every architecture, each architecture in a process of its own; writes studies/matrix.json.

make matrix                                                # all of them
python -m tests.matrix.run --minutes 9 --out part.json     # go on where part.json ends
python -m tests.matrix.run --only text/bert --checks pooled internal --out part.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from pathlib import Path

from klnorm_lib import studies

LIMIT = 300.0  # seconds for one architecture
VERSIONS = ("torch", "transformers", "safetensors", "numpy")


def answers(name: str, sender: Connection) -> None:
    """In the architecture's own process: send each check's answer, or that a plain small model does not run."""
    import torch
    import transformers

    from tests.matrix import architectures
    from tests.matrix.checks import checks_of, run

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model = architectures.build(name)
        model(**architectures.batch(name, model))
    except Exception as error:
        sender.send(("not built", " ".join(str(error).split()).removeprefix(f"{name}: ") or type(error).__name__))
        return
    for check in checks_of(name):
        sender.send((check, run(name, check)))


def all_answers(names: list[str], jobs: int, minutes: float):
    """Yield (name, check -> answer); what takes longer than ``LIMIT`` is stopped, and its open checks are faults."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.matrix.checks"])  # imported once, not by each process
    waiting, running = list(names), {}
    stop = time.monotonic() + 60 * minutes
    while running or (waiting and time.monotonic() < stop):
        while waiting and len(running) < jobs and time.monotonic() < stop:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=answers, args=(waiting[0], sender))
            process.start()
            sender.close()
            running[receiver] = (waiting.pop(0), process, time.monotonic(), {})
        for receiver in wait(list(running), timeout=1.0):
            try:
                check, answer = receiver.recv()
                running[receiver][3][check] = answer
            except EOFError:
                name, process, _, found = running.pop(receiver)
                process.join()
                yield name, closed(name, found, f"the process ended with {process.exitcode}")
        for receiver, (name, process, began, found) in list(running.items()):
            if time.monotonic() - began > LIMIT:
                process.kill()
                process.join()
                del running[receiver]
                yield name, closed(name, found, f"not finished after {LIMIT:g} s")


def closed(name: str, found: dict[str, str], why: str) -> dict[str, str]:
    """``found`` with the checks that have no answer as faults."""
    from tests.matrix.checks import checks_of

    return found if "not built" in found else {check: found.get(check, f"FAULT: {why}") for check in checks_of(name)}


def written(out: Path, built: dict, left: dict) -> None:
    """Write the record, whole or not at all."""
    record = {
        "schema_version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
        "architectures": dict(sorted(built.items())),
        "not_built": dict(sorted(left.items())),
    }
    part = out.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, out)


def main() -> None:
    from tests.matrix import architectures

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names such as text/bert; all without it")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further one after that long")
    parser.add_argument("--out", type=Path, default=studies.path("matrix.json"))
    parser.add_argument("--again", action="store_true", help="do not go on, begin anew")
    args = parser.parse_args()
    built, left = {}, {}
    if args.out.exists() and not args.again:
        record = json.loads(args.out.read_text(encoding="utf-8"))
        built, left = record["architectures"], record["not_built"]
    every = [*architectures.names(), *architectures.language_models()]
    names = args.only or [name for name in every if name not in built and name not in left]
    for number, (name, found) in enumerate(all_answers(names, args.jobs, args.minutes), 1):
        if "not built" in found:
            left[name] = found["not built"]
        else:
            built[name] = found
        written(args.out, built, left)
        faults = {check: answer for check, answer in found.items() if answer.startswith("FAULT")}
        print(f"{number}/{len(names)} {name} {faults or 'no fault'}", flush=True)


if __name__ == "__main__":
    main()
