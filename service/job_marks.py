"""When each job last ended well, so that one that nobody asks for any more is seen.

What this process runs it knows at once; of what may run anywhere, every process reads the ledger's
leases. So the serving processes tell of jobs whose workers, or beat, are gone.
"""

from __future__ import annotations

from collections.abc import Iterable

from service.clock import now_us
from service.ledger.leases import JobRow
from service.metrics import Metrics
from service.schedule import Job


class JobMarks:
    """One process's, exported as gauges. A mark only ever moves on, and there is none of a job
    before a run of it is known to have ended well: a guess would hide one that never does."""

    def __init__(self, metrics: Metrics, jobs: Iterable[Job], *, shared: bool) -> None:
        """`shared`: whether others could run the jobs that are not this process's own."""
        self._metrics = metrics
        self._at_us: dict[str, int] = {}
        jobs = list(jobs)
        self._leased = {job.name for job in jobs if shared and not job.own}
        for job in jobs:
            metrics.job_period.labels(job.name).set(job.every_seconds)

    def done(self, name: str) -> None:
        """Told of a run here that ended well just now."""
        self._mark(name, now_us())

    def read(self, rows: Iterable[JobRow]) -> None:
        """Told what the ledger has of jobs that may run anywhere."""
        for row in rows:
            if row.job in self._leased and row.done_at_us is not None:
                self._mark(row.job, row.done_at_us)

    def _mark(self, name: str, at_us: int) -> None:
        at_us = max(at_us, self._at_us.get(name, 0))
        self._at_us[name] = at_us
        self._metrics.job_done.labels(name).set(at_us / 1e6)
