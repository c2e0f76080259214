"""Which jobs there are, how often each runs, and whose it is. It opens nothing: beats read it."""

from __future__ import annotations

from typing import NamedTuple

from service.settings import Settings


class Job(NamedTuple):
    """One job."""

    name: str
    every_seconds: float
    own: bool = False
    """Every serving process runs it for itself: it is about that process alone."""


def schedule(settings: Settings) -> list[Job]:
    """The jobs under these settings.

    Memories that live in a process can be healed by that process alone.
    """
    often = settings.job_interval_seconds
    in_process = settings.redis_url is None
    jobs = [
        Job("defaults", often),
        Job("reconcile", often, own=in_process),
        Job("migrate", max(often, 5.0), own=in_process),
        Job("alarms", max(often, settings.alarm_interval_seconds)),
        Job("holds", often, own=True),
        Job("count", max(often, 30.0), own=True),
        Job("follow", often, own=True),
        Job("rollouts", max(often, 10.0)),
        Job("curves", max(often, 5.0)),
    ]
    if settings.retention_days is not None:
        jobs.append(Job("retention", max(often, 600.0)))
    return jobs
