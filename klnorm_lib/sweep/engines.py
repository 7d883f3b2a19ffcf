"""Where the runs of a study are carried out: processes of this machine, a Dask cluster, or a Ray cluster.

All three are joblib backends, so one loop drives them. A cluster of several machines (Slurm through dask-jobqueue, for
one) is started by its own means and named by its address; without an address a small one is started on this machine,
reachable from this machine only.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor

from klnorm_lib.study import cache
from klnorm_lib.study.errors import StudyError
from klnorm_lib.sweep import backends

ENGINES = ("local", "dask", "ray")
LOOPBACK = "127.0.0.1"
# Dask's settings on this machine: a busy one may need minutes to start a worker, and a run may keep one busy for long.
PATIENT = {
    "distributed.comm.timeouts.connect": "10 minutes",
    "distributed.comm.timeouts.tcp": "10 minutes",
    "distributed.scheduler.worker-ttl": None,
    "distributed.admin.tick.limit": "1 hour",
}


@dataclass
class Engine:
    """A running engine: ``width`` runs at a time; ``own_process``: they do not run in the calling process."""

    name: str
    width: int
    own_process: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def stream(self, call: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """``call(task)`` of every task, as they come; no more than ``width`` tasks are handed out at a time.

        Raises what the engine raises when a worker dies; what was handed out and has not come back is then lost.
        """
        with joblib.parallel_config(**self.options):
            parallel = joblib.Parallel(
                n_jobs=self.width, return_as="generator_unordered", batch_size=1, pre_dispatch=self.width
            )
        results = parallel(joblib.delayed(call)(task) for task in tasks)
        try:
            yield from results
        finally:
            results.close()


def check(name: str, jobs: int = 1, threads: int = 1, scheduler: str | None = None) -> None:
    """Raise ``StudyError`` for an engine that there is not, or options that it does not have."""
    if name not in ENGINES:
        raise StudyError(f"no engine {name!r}; there are {', '.join(ENGINES)}")
    if jobs < 1 or threads < 1:
        raise StudyError(f"jobs and threads must be at least 1, got jobs={jobs}, threads={threads}")
    if scheduler is not None and name == "local":
        raise StudyError("the local engine has no scheduler; say --engine dask or --engine ray")


@contextmanager
def start(name: str, jobs: int = 1, threads: int = 1, scheduler: str | None = None) -> Iterator[Engine]:
    """An engine that does ``jobs`` runs at a time, each with ``threads`` threads, for the time of the block.

    ``scheduler`` is the address of a Dask scheduler or of a Ray cluster that is there already. With ``local`` and one
    job the runs are carried out in this process. Raises ``StudyError`` for an unknown engine, or if it is not
    installed.
    """
    check(name, jobs, threads, scheduler)
    with ExitStack() as stack:
        yield {"local": _local, "dask": _dask, "ray": _ray}[name](stack, jobs, threads, scheduler)


def _local(stack: ExitStack, jobs: int, threads: int, scheduler: None) -> Engine:
    if jobs == 1:
        stack.enter_context(cache.keeping())
        return Engine("local", 1, own_process=False, options={"backend": "sequential"})
    stack.callback(lambda: get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True))
    return Engine("local", jobs, options={"backend": "loky", "inner_max_num_threads": threads})


def _dask(stack: ExitStack, jobs: int, threads: int, scheduler: str | None) -> Engine:
    _need("distributed", "dask")
    import dask
    from distributed import Client, LocalCluster

    backends.register_dask()
    if scheduler is None:
        alike = {f"{library}_NUM_THREADS": threads for library in ("OMP", "MKL", "OPENBLAS")}
        stack.enter_context(dask.config.set({"distributed.nanny.pre-spawn-environ": alike, **PATIENT}))
        cluster = LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            host=LOOPBACK,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": f"{LOOPBACK}:0"},  # health checks; there is no dashboard
            memory_limit=0,
            silence_logs=50,
        )
        scheduler = stack.enter_context(cluster).scheduler_address
    client = stack.enter_context(Client(scheduler, set_as_default=False))
    return Engine("dask", jobs, options={"backend": backends.DASK, "client": client, "wait_for_workers_timeout": 300})


def _ray(stack: ExitStack, jobs: int, threads: int, scheduler: str | None) -> Engine:
    _need("ray", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # cards are given out by klnorm_lib.sweep.packing
    if scheduler is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # then a node of one machine is on loopback
        own = {"num_cpus": jobs, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    import ray

    backends.register_ray()
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="error", **(own if scheduler is None else {"address": scheduler}))
        stack.callback(ray.shutdown)
    return Engine("ray", jobs, options={"backend": backends.RAY})


def _need(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise StudyError(f"the engine needs {module}, which is not installed: pip install 'klnorm-lib[{extra}]'")
