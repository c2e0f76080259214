"""Dynamic batching: one call for all items that are waiting when a call may be made.

An item never waits for company: the first one is served as soon as the event loop has handed over
what had already arrived, and what arrives meanwhile is served next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class BacklogFullError(Exception):
    """More items are waiting than may wait."""


class Batcher(Generic[T, R]):
    """Batches the calls of one process. Use inside a running event loop."""

    def __init__(
        self,
        serve: Callable[[list[T]], Awaitable[Sequence[R | Exception]]],
        largest: int,
        most_waiting: int = 10_000,
        at_once: int = 1,
    ) -> None:
        """`serve` answers a list of at most `largest` items in their order, each with a result or
        with the exception that its asker gets; what it raises, every asker of the list gets.
        `at_once` lists are being served at most."""
        self._serve = serve
        self._largest = largest
        self._most_waiting = most_waiting
        self._at_once = at_once
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._running = 0
        """Runs that will look again at what is waiting. One that has looked for the last time does
        not count, though its task may not have ended yet."""
        self._runs: set[asyncio.Task[None]] = set()
        self._gathering = False
        """A run is about to take what is waiting, so that nobody needs to start another."""

    def ask(self, item: T) -> asyncio.Future[R]:
        """The answer to `item`, when it is there. Raises BacklogFullError."""
        if len(self._waiting) >= self._most_waiting:
            raise BacklogFullError(f"{self._most_waiting} are waiting already")
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if not self._gathering and self._running < self._at_once:
            self._gathering = True
            self._running += 1
            # Not in the context of whoever asks first: a run works for all who ask.
            run = asyncio.create_task(self._run(), context=Context())
            self._runs.add(run)
            run.add_done_callback(self._runs.discard)
        return answer

    async def drain(self) -> None:
        """Returns when everything that was asked is answered."""
        while self._runs:
            await asyncio.wait(self._runs)

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await asyncio.sleep(0)  # what has arrived with the first is on its way here
                finally:
                    self._gathering = False
                size = min(len(self._waiting), self._largest)
                await self._answer([self._waiting.popleft() for _ in range(size)])
                if self._gathering or not self._waiting:
                    return
                self._gathering = True
        finally:
            self._running -= 1

    async def _answer(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        results: Sequence[R | Exception]
        try:
            results = await self._serve([item for item, _ in batch])
        except Exception as error:
            results = [error] * len(batch)
        for (_, answer), result in zip(batch, results, strict=True):
            if answer.done():  # whoever asked has gone
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)
