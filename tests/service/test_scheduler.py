"""Jobs under leases: one run at a time, whoever asks, and the next goes on from a run that died."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.ledger.leases import Kept, Lease, read_jobs, release, renew, take
from service.ledger.ledger import Ledger
from service.metrics import Metrics
from service.schedule import schedule
from service.scheduler import Run, Scheduler
from service.settings import Settings
from tests.service.conftest import Open

REDIS = "redis://127.0.0.1:1/0"  # never spoken to: whose a job is depends on it


@pytest.fixture
async def ledger(postgres_url: str) -> AsyncIterator[Ledger]:
    """A ledger that several may have open."""
    opened = Ledger.open(postgres_url)
    yield opened
    await opened.close()


def scheduler(
    ledger: Ledger, run: Run, metrics: Metrics | None = None, **settings: Any
) -> Scheduler:
    """One process's scheduler, whose job `defaults` is `run`."""
    given: dict[str, Any] = {"redis_url": REDIS, "job_interval_seconds": 0.01}
    return Scheduler(
        ledger,
        metrics or Metrics(),
        Settings(**(given | {"job_lease_seconds": 0.5} | settings)),
        {"defaults": run},
    )


async def test_of_many_who_run_a_job_at_once_one_does(ledger: Ledger) -> None:
    running, most, runs = 0, 0, 0

    async def run(_: Kept) -> None:
        nonlocal running, most, runs
        running, runs = running + 1, runs + 1
        most = max(most, running)
        await asyncio.sleep(0.3)
        running -= 1

    several = [scheduler(ledger, run) for _ in range(4)]
    outcomes = await asyncio.gather(*(one.run_job("defaults") for one in several))
    assert sorted(outcomes) == ["done", "skipped", "skipped", "skipped"]
    assert (runs, most) == (1, 1)


async def test_a_run_that_outlasts_its_lease_renews_it(ledger: Ledger) -> None:
    async def run(_: Kept) -> None:
        await asyncio.sleep(1.2)

    first = asyncio.create_task(scheduler(ledger, run).run_job("defaults"))
    await asyncio.sleep(0.9)
    assert await scheduler(ledger, run).run_job("defaults") == "skipped"
    assert await first == "done"


async def test_two_beats_run_a_job_as_often_as_one(ledger: Ledger) -> None:
    runs = 0

    async def run(_: Kept) -> None:
        nonlocal runs
        runs += 1

    beats = [scheduler(ledger, run, job_interval_seconds=60.0) for _ in range(2)]
    outcomes = [await one.run_job("defaults") for one in (*beats, *beats)]
    assert outcomes == ["done", "skipped", "skipped", "skipped"]
    assert runs == 1


async def test_after_a_run_that_died_the_next_waits_for_the_lease_and_not_for_the_period(
    ledger: Ledger,
) -> None:
    died = await ledger.alone(lambda it: take(it, "defaults", "gone", 0.5, 0))
    assert died is not None

    async def run(kept: Kept) -> None:
        kept["seen"] = kept.get("seen", 0) + 1

    next_one = scheduler(ledger, run, job_interval_seconds=3600.0)
    assert await next_one.run_job("defaults") == "skipped"
    await asyncio.sleep(0.6)
    assert await next_one.run_job("defaults") == "done"
    (row,) = await ledger.read(read_jobs)
    assert (row.runs, row.outcome, row.is_running) == (2, "done", False)


async def test_what_a_sleeper_wrote_down_is_refused_once_another_began(ledger: Ledger) -> None:
    async def begin(kept: Kept | None = None) -> Lease:
        lease = await ledger.alone(lambda it: take(it, "reconcile", "one", 0.5, 0))
        assert lease is not None
        return lease

    sleeper = await begin()
    await asyncio.sleep(0.6)
    other = await begin()
    assert other.fence > sleeper.fence
    sleeper.kept["from"] = "the sleeper"
    assert not await ledger.alone(lambda it: renew(it, sleeper, 10))
    assert not await ledger.alone(lambda it: release(it, sleeper, "done"))
    other.kept["from"] = "the other"
    assert await ledger.alone(lambda it: release(it, other, "done"))
    assert (await begin()).kept == {"from": "the other"}


async def test_a_run_whose_lease_went_to_another_is_ended(ledger: Ledger) -> None:
    ended = False

    async def run(_: Kept) -> None:
        nonlocal ended
        taken = await ledger.alone(lambda it: it.exec_driver_sql("UPDATE jobs SET fence = 99"))
        assert taken is not None
        try:
            await asyncio.sleep(30)
        finally:
            ended = True

    assert await scheduler(ledger, run).run_job("defaults") == "lost"
    assert ended


async def test_a_job_that_fails_fails_alone_and_keeps_what_it_wrote_down(ledger: Ledger) -> None:
    async def run(kept: Kept) -> None:
        kept["times"] = kept.get("times", 0) + 1
        if kept["times"] == 1:
            raise RuntimeError("what a customer sent")

    one = scheduler(ledger, run)
    assert await one.run_job("defaults") == "failed"
    await asyncio.sleep(0.01)
    assert await one.run_job("defaults") == "done"
    lease = await ledger.alone(lambda it: take(it, "defaults", "me", 1, 0))
    assert lease is not None
    assert lease.kept == {"times": 2}


def done_at(metrics: Metrics, job: str = "defaults") -> float | None:
    """When a run of the job last ended well, as these metrics say."""
    return metrics.registry.get_sample_value("acclimate_job_done_timestamp_seconds", {"task": job})


async def test_processes_that_run_no_jobs_tell_when_each_was_last_done(ledger: Ledger) -> None:
    fails = False

    async def run(_: Kept) -> None:
        if fails:
            raise RuntimeError("what a customer sent")

    worker, replica = Metrics(), Metrics()
    runs = scheduler(ledger, run, worker)
    looks = scheduler(ledger, run, replica)
    await looks.look()
    assert (done_at(worker), done_at(replica)) == (None, None)
    began = time.time()
    assert await runs.run_job("defaults") == "done"
    await looks.look()
    done = done_at(replica)
    assert done == pytest.approx(done_at(worker), abs=2)
    assert done is not None
    assert done > began - 2
    # Runs that fail leave it where it is, and so does time in which nobody asks.
    fails = True
    await asyncio.sleep(0.1)
    assert await runs.run_job("defaults") == "failed"
    await looks.look()
    assert (done_at(replica), done_at(replica, "alarms")) == (done, None)


async def test_runs_that_do_not_end_well_tell_a_new_process_of_none_but_the_last_that_did(
    ledger: Ledger,
) -> None:
    async def run(_: Kept) -> None:
        """Nothing is asked of it."""

    async def known() -> float | None:
        metrics = Metrics()
        await scheduler(ledger, run, metrics).look()
        return done_at(metrics)

    async def begin() -> Lease:
        lease = await ledger.alone(lambda it: take(it, "defaults", "one", 0.2, 0))
        assert lease is not None
        return lease

    async def end(outcome: str) -> None:
        lease = await begin()
        assert await ledger.alone(lambda it: release(it, lease, outcome))

    await begin()  # and killed
    await asyncio.sleep(0.3)
    assert await known() is None
    await end("failed")
    assert await known() is None
    await end("done")
    (row,) = await ledger.read(read_jobs)
    assert row.done_at_us == row.ended_at_us
    assert row.done_at_us is not None
    done = row.done_at_us / 1e6
    assert await known() == done
    await end("failed")
    assert await known() == done
    await begin()
    assert await known() == done  # while the next runs
    await asyncio.sleep(0.3)
    assert await known() == done  # and when it was killed
    await end("done")
    later = await known()
    assert later is not None
    assert later > done


async def test_embedded_every_job_runs_without_a_lease(open_client: Open) -> None:
    async with open_client(retention_days=1.0) as client:
        began = time.time()
        await client.service.scheduler.run_once()
        assert await client.service.ledger.read(read_jobs) == []
        every = schedule(client.service.settings)
        assert await client.metric("acclimate_job_runs_total") == len(every) > 5
        answer = await client.http.get("/metrics")
        assert 'outcome="failed"' not in answer.text
        for job in every:
            labels = {"task": job.name}
            period = client.service.metrics.registry.get_sample_value(
                "acclimate_job_period_seconds", labels
            )
            assert period == job.every_seconds
            done = done_at(client.service.metrics, job.name)
            assert done is not None
            assert began <= done <= time.time()
