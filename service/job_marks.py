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
    """One process's, exported as gauges. A mark only ever moves on."""

    def __init__(self, metrics: Metrics, jobs: Iterable[Job], *, shared: bool) -> None:
        """`shared`: whether others could run the jobs that are not this process's own. A job is
        taken to have ended well as this process began, until more is known."""
        self._metrics = metrics
        self._began_us = now_us()
        self._at_us: dict[str, int] = {}
        jobs = list(jobs)
        self._leased = [job.name for job in jobs if shared and not job.own]
        for job in jobs:
            metrics.job_period.labels(job.name).set(job.every_seconds)
            if job.name not in self._leased:
                self._mark(job.name, self._began_us)

    def done(self, name: str) -> None:
        """Told of a run here that ended well just now."""
        self._mark(name, now_us())

    def read(self, rows: Iterable[JobRow]) -> None:
        """Told what the ledger has of last runs.

        One that ended well is when it says. Of one that did not, or has not yet, it is not known
        when one before it did: at the latest as it ended, or was killed, before this process first
        looked. Of one that never ran, as this process began.
        """
        found = {row.job: row for row in rows}
        for name in self._leased:
            row = found.get(name)
            if row is not None and row.outcome == "done" and row.ended_at_us is not None:
                self._mark(name, row.ended_at_us)
            elif name not in self._at_us:
                last = None if row is None else row.ended_at_us or row.began_at_us
                self._mark(name, self._began_us if last is None else last)

    def _mark(self, name: str, at_us: int) -> None:
        at_us = max(at_us, self._at_us.get(name, 0))
        self._at_us[name] = at_us
        self._metrics.job_done.labels(name).set(at_us / 1e6)
