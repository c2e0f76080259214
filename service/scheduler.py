"""Runs jobs: each under its lease where others could run it too, none in another's way.

A run that is killed leaves a lease that ends by itself, and what it had done so far: every job is
made of steps that are whole or not there, and a later run goes on from them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Literal

from service.job_marks import JobMarks
from service.ledger.leases import Kept, Lease, read_jobs, release, renew, take
from service.ledger.ledger import Ledger
from service.ledger.records import LedgerUnavailableError
from service.memory.store import MemoryUnavailableError
from service.metrics import Metrics
from service.schedule import Job, schedule
from service.settings import Settings

RENEWALS = 3
"""How often a lease is renewed in its time."""
GAP = 0.5
"""The share of a job's period that a run keeps from the one before, where two beats ask."""
LOOK_SECONDS = 30.0
"""How often a process looks when jobs last ended that ran elsewhere."""

Run = Callable[[Kept], Awaitable[object]]
Outcome = Literal["done", "failed", "skipped", "lost"]
"""`skipped`: another runs it, or just did. `lost`: another began while this run was asleep."""

log = logging.getLogger(__name__)


class Scheduler:
    """One process's jobs by name, run one by one (`run_job`) or for ever (`run`)."""

    def __init__(
        self, ledger: Ledger, metrics: Metrics, settings: Settings, runs: Mapping[str, Run]
    ) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._settings = settings
        self._runs = runs
        self._jobs = {job.name: job for job in schedule(settings)}
        self._marks = JobMarks(metrics, self._jobs.values(), shared=ledger.shared)
        self._kept: defaultdict[str, Kept] = defaultdict(dict)
        """What jobs of this process alone write down."""
        self._holder = f"{socket.gethostname()[:80]}:{os.getpid()}:{secrets.token_hex(4)}"

    async def run(self) -> None:
        """What this process is to run, each job in its own time, until cancelled."""
        here = self._settings.jobs == "here"
        jobs = [job for job in self._jobs.values() if here or job.own]
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(self._repeat(job))
            if self._ledger.shared:
                group.create_task(self._look_around())

    async def look(self) -> None:
        """Takes note of when jobs that ran elsewhere last ended. Raises LedgerUnavailableError."""
        self._marks.read(await self._ledger.read(read_jobs))

    async def run_once(self) -> None:
        """Every job, once."""
        for name in self._jobs:
            await self.run_job(name)

    async def run_job(self, name: str) -> Outcome:
        """One run of the job of that name. A job that fails is logged, and fails alone."""
        job = self._jobs[name]
        started = time.perf_counter()
        leased = self._ledger.shared and not job.own
        outcome: Outcome
        try:
            outcome = await (self._leased(job) if leased else self._run(job, self._kept[name]))
        except Exception as error:  # of the lease: a job's own end in its outcome
            log.warning("%s: %s", name, type(error).__name__)
            outcome = "failed"
        self._metrics.job_runs.labels(name, outcome).inc()
        if outcome == "done":
            self._marks.done(name)
        if outcome != "skipped":
            self._metrics.job_seconds.labels(name).observe(time.perf_counter() - started)
        return outcome

    async def _repeat(self, job: Job) -> None:
        while True:
            await self.run_job(job.name)
            await asyncio.sleep(job.every_seconds)

    async def _look_around(self) -> None:
        while True:
            try:
                await self.look()
            except Exception as error:  # jobs go on without it
                log.warning("when jobs last ended is not known: %s", type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def _leased(self, job: Job) -> Outcome:
        seconds = self._settings.job_lease_seconds
        taking = partial(
            take,
            job=job.name,
            holder=self._holder,
            lease_seconds=seconds,
            gap_seconds=GAP * job.every_seconds,
        )
        lease = await self._ledger.alone(taking)
        if lease is None:
            return "skipped"
        outcome = await self._run_while_held(job, lease)
        if outcome == "lost":
            return outcome
        ended = await self._ledger.alone(partial(release, lease=lease, outcome=outcome))
        return outcome if ended else "lost"

    async def _run_while_held(self, job: Job, lease: Lease) -> Outcome:
        """Runs the job while the lease is ours; a run whose lease went to another is cancelled."""
        seconds = self._settings.job_lease_seconds
        running = asyncio.create_task(self._run(job, lease.kept))
        renewing = partial(renew, lease=lease, lease_seconds=seconds)
        try:
            while not (await asyncio.wait([running], timeout=seconds / RENEWALS))[0]:
                if not await self._ledger.alone(renewing):
                    log.warning("%s: its lease went to another run", job.name)
                    return "lost"
            return running.result()
        finally:
            if not running.done():
                running.cancel()
                await asyncio.wait([running])

    async def _run(self, job: Job, kept: Kept) -> Outcome:
        try:
            await self._runs[job.name](kept)
        except (LedgerUnavailableError, MemoryUnavailableError) as error:
            log.warning("%s: %s", job.name, type(error).__name__)
            return "failed"
        except Exception as error:
            log.error("%s failed: %s", job.name, type(error).__name__)
            return "failed"
        return "done"
