"""A service that is closed ends, whatever its jobs are at just then."""

from __future__ import annotations

import asyncio

from service.runtime import end


async def test_a_job_whose_cancellation_meets_an_answer_ends_all_the_same() -> None:
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def rounds() -> None:
        await asyncio.wait_for(answer, 5)
        await asyncio.Event().wait()

    job = asyncio.create_task(rounds())
    await asyncio.sleep(0)
    answer.set_result(None)  # Python 3.11 forgets the first cancellation here
    await asyncio.wait_for(end(job), 5)
    assert job.cancelled()


async def test_a_job_that_ended_by_itself_is_left_as_it_is() -> None:
    job = asyncio.create_task(asyncio.sleep(0))
    await job
    await end(job)
    assert not job.cancelled()
