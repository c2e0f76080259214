"""Group commit: concurrent writes share one transaction, one thread and one fsync.

A write that is refused fails alone and changes nothing; when the commit itself fails, every write
of the group fails and nothing of it was kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from service.clock import now_us
from service.ledger.records import LedgerUnavailableError
from service.ledger.rows import load, store
from service.ledger.settle import Write
from service.together import Together

LARGEST_GROUP = 256
"""Writes in one transaction at most."""
LOST_RACES = 2
"""How often a group is run again after another process took a key of it first."""


class GroupCommit:
    """Owns the writer thread of one process. Use inside a running event loop."""

    def __init__(self, engine: Engine, observe: Callable[[int, float], None]) -> None:
        """`observe` is told each group's size and its seconds from begin to commit."""
        self._engine = engine
        self._observe = observe
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ledger-writer")
        self._writes: Together[Write, Any] = Together(self._serve, LARGEST_GROUP)
        self._closed = False

    def submit(self, write: Write) -> asyncio.Future[Any]:
        """What the write was settled as, once durable. The future raises what settling it raised,
        or LedgerUnavailableError."""
        if self._closed:
            raise LedgerUnavailableError("the service is shutting down")
        return self._writes.ask(write)

    async def close(self) -> None:
        """Commits what is pending, then stops."""
        self._closed = True
        await self._writes.drain()
        self._writer.shutdown()

    async def _serve(self, group: list[Write]) -> list[Any]:
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        outcomes = await loop.run_in_executor(self._writer, self._commit, group)
        self._observe(len(group), time.perf_counter() - started)
        return outcomes

    def _commit(self, group: Sequence[Write]) -> list[Any]:
        """Each write's outcome or the exception it is refused with; in the writer thread.

        A lost race with another process for a key is run again: then the row that won is seen.
        """
        try:
            for _ in range(LOST_RACES):
                with contextlib.suppress(IntegrityError):
                    return self._attempt(group)
            return self._attempt(group)
        except Exception as error:
            raise LedgerUnavailableError(f"the ledger did not commit: {error}") from error

    def _attempt(self, group: Sequence[Write]) -> list[Any]:
        outcomes: list[Any] = []
        with self._engine.begin() as connection:
            view = load(connection, group, now_us())
            for write in group:
                try:
                    outcomes.append(write.settle(view))
                except Exception as error:
                    outcomes.append(error)
            store(connection, view)
        return outcomes
