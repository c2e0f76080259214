"""The machine that the benchmark runs on: what it is, and which of its cores serve."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("fastapi", "onnxruntime", "pydantic", "uvicorn", "uvloop")


@dataclass(frozen=True)
class Cores:
    """Who runs where. Redis and PostgreSQL run on all cores, wherever there is room."""

    client: frozenset[int]
    systems: frozenset[int]
    """The echo's and the service's."""

    @property
    def all(self) -> frozenset[int]:
        return self.client | self.systems

    @property
    def one(self) -> frozenset[int]:
        """A single core for a service."""
        return frozenset({min(self.systems)})


def shared_out() -> Cores:
    """The last core for the client and the others for what it measures; a single one for both."""
    if not hasattr(os, "sched_getaffinity"):
        here = frozenset(range(os.cpu_count() or 1))
        return Cores(here, here)
    *others, last = sorted(os.sched_getaffinity(0))
    return Cores(frozenset({last}), frozenset(others or {last}))


@contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Runs this thread there, and for good what it starts; nothing where the system has no way."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe(cores: Cores) -> dict[str, Any]:
    """What to tell with every figure."""
    return {
        "cpu": _cpu_model(),
        "cores": len(cores.all),
        "client_cores": len(cores.client),
        "service_cores": len(cores.systems),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "filesystem": filesystem(Path(tempfile.gettempdir())),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    } | {name: version(name) for name in PACKAGES}


def filesystem(folder: Path) -> str:
    """The kind of file system that a folder is on, as the kernel calls it."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    path = folder.resolve()
    holding = [(len(m[1]), m[2]) for m in mounts if path.is_relative_to(Path(m[1]))]
    # The deepest mount point holds it; of several on one point, the last one mounted.
    return max(holding, key=lambda one: one[0])[1] if holding else "unknown"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
