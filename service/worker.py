"""Celery around the jobs: a worker that runs them, and the beat that asks for them.

A worker is one process with one service open, and its Celery threads hand jobs to that service's
event loop. What keeps runs apart, and whole when one is killed, is the scheduler's part and not
Celery's: a message that is lost, doubled or late does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from celery import Celery
from prometheus_client import start_http_server

from service.fault_points import arm
from service.migration_wait import until_migrated
from service.runtime import Service, open_service
from service.schedule import schedule
from service.settings import Settings

QUEUE = "acclimate"
TASK = "acclimate.run_job"
MESSAGE_SECONDS = 5.0
"""The least that a message waits for a worker before it is dropped: the next one asks again."""


def celery_app(settings: Settings) -> Celery:
    """The application that workers and beats share. Raises ValueError without a broker."""
    app = Celery("acclimate", broker=settings.broker(), set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,
        # A run that a kill ended is not delivered again: beat asks anew within its period.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"global_keyprefix": "acclimate:celery:"},
        beat_schedule={
            job.name: {
                "task": TASK,
                "args": (job.name,),
                "schedule": job.every_seconds,
                "options": {"expires": max(job.every_seconds, MESSAGE_SECONDS)},
            }
            for job in schedule(settings)
            if not job.own
        },
    )
    return app


def run_worker(settings: Settings, concurrency: int) -> None:
    """Runs jobs until SIGTERM or SIGINT, and ends when those that run have ended; a second signal
    waits for none. Raises what opening the service raises."""
    arm(settings.fault_point)
    with _opened(settings) as (service, loop):
        if settings.worker_metrics_port is not None:
            start_http_server(settings.worker_metrics_port, registry=service.metrics.registry)
        app = celery_app(settings)

        @app.task(name=TASK)  # type: ignore[untyped-decorator]
        def run_job(name: str) -> str:
            running: Future[str] = asyncio.run_coroutine_threadsafe(
                service.scheduler.run_job(name), loop
            )
            return running.result()

        worker: Any = app.Worker(
            pool="threads",
            concurrency=concurrency,
            queues=[QUEUE],
            without_mingle=True,
            without_gossip=True,
            loglevel="WARNING",
            quiet=True,
        )
        worker.start()


def run_beat(settings: Settings) -> None:
    """Asks for every job in its time, until SIGTERM or SIGINT. Several at once ask more often, and
    the jobs run as often as with one."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    beat: Any = celery_app(settings).Beat(
        schedule=str(settings.data_dir / "beat"), loglevel="WARNING", quiet=True
    )
    beat.run()


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Service, asyncio.AbstractEventLoop]]:
    """A service, and the loop it is open on, which runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="jobs", daemon=True)
    thread.start()
    # What it exports of alarms and switches is to end when they do: jobs of its own go on.
    opening = open_service(settings, schedule=settings.jobs == "workers")
    try:
        asyncio.run_coroutine_threadsafe(until_migrated(settings), loop).result()
        service = asyncio.run_coroutine_threadsafe(opening.__aenter__(), loop).result()
        try:
            yield service, loop
        finally:
            closing = opening.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(closing, loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
