"""Which software and hardware a number was made on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "numpy")


def versions() -> dict[str, str]:
    """Versions of python, this library and the packages that decide numbers."""
    from klnorm_lib import __version__

    found = {"python": platform.python_version(), "klnorm_lib": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, torch threads, accelerator and memory (GiB) of this machine."""
    import torch

    gpu = None
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name(0)
    elif torch.backends.mps.is_available():
        gpu = "Apple MPS"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads(),
        "gpu": gpu,
        "ram_gib": _ram_gib(),
    }


def threads() -> int:
    """How many threads torch computes with; it may decide the last digits of a number."""
    import torch

    return torch.get_num_threads()


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _ram_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def peak_memory(device: str) -> dict[str, Any]:
    """Largest memory so far: allocated on the accelerator, else resident in this process since it started."""
    import torch

    if device == "cuda":
        return {"peak_bytes": int(torch.cuda.max_memory_allocated()), "what": "allocated on the accelerator"}
    try:
        import resource
    except ImportError:  # Windows has no resource module
        return {"peak_bytes": None, "what": "not measured on this system"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "peak_bytes": int(peak if sys.platform == "darwin" else peak * 1024),
        "what": "resident in the process, from its start",
    }


def pick_device(name: str) -> str:
    """The device a run uses: ``auto`` is cuda, else mps, else cpu. Raises ``ValueError`` if it is not there."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, ok in there.items() if ok)
    if not there[name]:
        usable = ", ".join(device for device, ok in there.items() if ok)
        raise ValueError(f"device={name!r} is not available here; choose auto or one of: {usable}")
    return name


def forget_peak_memory() -> None:
    """Start the accelerator's peak afresh."""
    import torch

    torch.cuda.reset_peak_memory_stats()


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """On an accelerator, asks torch for algorithms that give the same bits each time, where it has them."""
    import torch

    if device != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
