"""Two of joblib's backends, adapted to studies: results as they come, and an error where a worker has died."""

from __future__ import annotations

import asyncio

from joblib import register_parallel_backend

DASK, RAY = "klnorm-dask", "klnorm-ray"


class Raising:
    """Raises the error that a task has in place of a result."""

    def retrieve_result_callback(self, out):
        """The results of a task; raises the error if there is one."""
        if isinstance(out, BaseException):
            raise out
        return super().retrieve_result_callback(out)


def register_dask() -> None:
    """joblib's Dask backend, which also reports a task that killed its worker again and again (joblib's waits on)."""
    from joblib._dask import DaskDistributedBackend

    class Dask(Raising, DaskDistributedBackend):
        async def _collect(self):
            while self._continue:
                async for future, result in self.waiting_futures:
                    answer, callback = self._results.pop(future), self._callbacks.pop(future)
                    if future.status == "error":
                        _, error, _ = result
                        answer.set_exception(error)
                        callback(error)
                    else:
                        answer.set_result(result)
                        callback(result)
                await asyncio.sleep(0.01)

    register_parallel_backend(DASK, Dask)


def register_ray() -> None:
    """Ray's backend for joblib, with results as they come rather than all at the end."""
    from ray.util.joblib.ray_backend import RayBackend

    class Ray(Raising, RayBackend):
        supports_return_generator = True

    register_parallel_backend(RAY, Ray)
