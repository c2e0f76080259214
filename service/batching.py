"""Dynamic batching: one call for all items that are waiting when the last call is done.

An item never waits for company: the first one is served as soon as the event loop has handed over
what had already arrived, and what arrives meanwhile is served next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class BacklogFullError(Exception):
    """More items are waiting than may wait."""


class Batcher(Generic[T, R]):
    """Batches the calls of one process. Use inside a running event loop."""

    def __init__(
        self,
        serve: Callable[[list[T]], Awaitable[list[R | Exception]]],
        largest: int,
        most_waiting: int = 10_000,
    ) -> None:
        """`serve` answers a list of at most `largest` items in their order, each with a result or
        with the exception that its asker gets; what it raises, every asker of the list gets."""
        self._serve = serve
        self._largest = largest
        self._most_waiting = most_waiting
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._running: asyncio.Task[None] | None = None

    def ask(self, item: T) -> asyncio.Future[R]:
        """The answer to `item`, when it is there. Raises BacklogFullError."""
        if len(self._waiting) >= self._most_waiting:
            raise BacklogFullError(f"{self._most_waiting} are waiting already")
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return answer

    async def drain(self) -> None:
        """Returns when everything that was asked is answered."""
        while self._running is not None:
            await self._running

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # what has arrived with the first is on its way here
                size = min(len(self._waiting), self._largest)
                batch = [self._waiting.popleft() for _ in range(size)]
                try:
                    results = await self._serve([item for item, _ in batch])
                except Exception as error:
                    results = [error] * size
                for (_, answer), result in zip(batch, results, strict=True):
                    if answer.done():  # whoever asked has gone
                        continue
                    if isinstance(result, Exception):
                        answer.set_exception(result)
                    else:
                        answer.set_result(result)
        finally:
            self._running = None
