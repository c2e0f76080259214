"""Leases: who may run a job now, and what its last run wrote down for the next.

A lease ends by itself: a worker that was killed or hangs keeps nobody waiting for long. Each has a
number above all before it (a fence), and what a run writes down is refused once another began.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, text, update

from service.clock import now_us
from service.ledger.tables import jobs

Kept = dict[str, Any]
"""What a job's run writes down for its next one: JSON."""


class Lease(NamedTuple):
    """One run of one job."""

    job: str
    fence: int
    kept: Kept


class JobRow(NamedTuple):
    """A job's last run, as the ledger has it."""

    job: str
    runs: int
    """How many began."""
    holder: str
    """Who ran it last."""
    is_running: bool
    began_at_us: int
    ended_at_us: int | None
    """None: it did not end; killed, unless it is running."""
    outcome: str | None
    """Of the last run that ended: done, or failed."""
    done_at_us: int | None
    """When a run last ended well, whatever came after it; None: not known of any."""


def take(
    connection: Connection, job: str, holder: str, lease_seconds: float, gap_seconds: float
) -> Lease | None:
    """The lease; None while another holds it, or when the last run that ended began less than
    `gap_seconds` ago, as where two beats ask for one."""
    columns, now = jobs.c, _now_us(connection)
    connection.execute(
        text("INSERT INTO jobs (job, fence, until_us, kept) VALUES (:job, 0, 0, '{}') "
             "ON CONFLICT DO NOTHING"),
        {"job": job},
    )  # fmt: skip
    is_early = columns.ended_at_us.is_not(None) & (
        columns.began_at_us > now - round(gap_seconds * 1e6)
    )
    taken = connection.execute(
        update(jobs)
        .where(columns.job == job, columns.until_us <= now, ~is_early)
        .values(
            fence=columns.fence + 1,
            holder=holder,
            until_us=now + round(lease_seconds * 1e6),
            began_at_us=now,
            ended_at_us=None,
        )
        .returning(columns.fence, columns.kept)
    ).first()
    return None if taken is None else Lease(job, taken.fence, json.loads(taken.kept))


def renew(connection: Connection, lease: Lease, lease_seconds: float) -> bool:
    """Whether it is still this run's, and now for so long again."""
    until = _now_us(connection) + round(lease_seconds * 1e6)
    own = (jobs.c.job == lease.job) & (jobs.c.fence == lease.fence)
    return connection.execute(update(jobs).where(own).values(until_us=until)).rowcount == 1


def release(connection: Connection, lease: Lease, outcome: str) -> bool:
    """Ends the run with what it wrote down; False, and nothing is kept, when another began.

    One that is `done` is remembered as the last that ended well, until the next that is.
    """
    own = (jobs.c.job == lease.job) & (jobs.c.fence == lease.fence)
    now = _now_us(connection)
    ended = {"until_us": 0, "ended_at_us": now, "outcome": outcome}
    if outcome == "done":
        ended["done_at_us"] = now
    found = connection.execute(update(jobs).where(own).values(kept=json.dumps(lease.kept), **ended))
    return found.rowcount == 1


def read_jobs(connection: Connection) -> list[JobRow]:
    """Every job that ever ran under a lease, by name."""
    now = _now_us(connection)
    return [
        JobRow(
            row.job,
            row.fence,
            row.holder,
            row.until_us > now,
            row.began_at_us,
            row.ended_at_us,
            row.outcome,
            row.done_at_us,
        )
        for row in connection.execute(select(jobs).where(jobs.c.fence > 0).order_by(jobs.c.job))
    ]


def _now_us(connection: Connection) -> int:
    """The database's clock: workers on several hosts need not agree on the time."""
    if connection.dialect.name == "sqlite":
        return now_us()
    epoch = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
    return int(connection.scalar(epoch))
