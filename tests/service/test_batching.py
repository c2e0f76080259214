"""Dynamic batching: nobody waits for company, and nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from service.batching import BacklogFullError, Batcher


async def test_what_is_asked_for_at_once_is_served_together() -> None:
    batches: list[list[int]] = []

    async def double(items: list[int]) -> Sequence[int | Exception]:
        batches.append(items)
        await asyncio.sleep(0)
        return [2 * item for item in items]

    batcher: Batcher[int, int] = Batcher(double, largest=4)
    assert await asyncio.gather(*(batcher.ask(n) for n in range(10))) == [2 * n for n in range(10)]
    assert [len(batch) for batch in batches] == [4, 4, 2]


@pytest.mark.parametrize("at_once", [1, 2, 3])
async def test_who_asks_again_as_soon_as_it_is_answered_is_served(at_once: int) -> None:
    """It asks before the run that answered it has ended, with nobody coming after it."""

    async def served(items: list[int]) -> Sequence[int | Exception]:
        await asyncio.sleep(0)
        return items

    batcher: Batcher[int, int] = Batcher(served, largest=8, at_once=at_once)
    async with asyncio.timeout(10):
        for n in range(100):
            assert await batcher.ask(n) == n
        await asyncio.gather(*(again(batcher, 50) for _ in range(5)))
        await batcher.drain()


async def again(batcher: Batcher[int, int], times: int) -> None:
    for n in range(times):
        assert await batcher.ask(n) == n


async def test_an_item_that_fails_fails_alone_and_a_batch_that_fails_fails_whole() -> None:
    async def picky(items: list[int]) -> Sequence[int | Exception]:
        if 0 in items:
            raise KeyError("all")
        return [ValueError(str(item)) if item < 0 else item for item in items]

    batcher: Batcher[int, int] = Batcher(picky, largest=8)
    found = await asyncio.gather(*(batcher.ask(n) for n in (1, -1)), return_exceptions=True)
    assert found[0] == 1
    assert isinstance(found[1], ValueError)
    found = await asyncio.gather(*(batcher.ask(n) for n in (1, 0)), return_exceptions=True)
    assert all(isinstance(one, KeyError) for one in found)


async def test_more_than_may_wait_is_refused() -> None:
    async def never(items: list[int]) -> Sequence[int | Exception]:
        await asyncio.sleep(60)
        return items

    batcher: Batcher[int, int] = Batcher(never, largest=1, most_waiting=2)
    waiting = [batcher.ask(0)]
    await asyncio.sleep(0.01)
    waiting += [batcher.ask(1), batcher.ask(2)]
    with pytest.raises(BacklogFullError):
        batcher.ask(3)
    for one in waiting:
        one.cancel()
    for run in batcher._runs:
        run.cancel()
