"""Group commit: concurrent writes share one transaction, one thread and one fsync.

A write that is refused fails alone and changes nothing; when the commit itself fails, every write
of the group fails and nothing of it was kept.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from service.clock import now_us
from service.ledger.records import LedgerUnavailableError
from service.ledger.rows import load, store
from service.ledger.settle import Write

LARGEST_GROUP = 256
"""Writes in one transaction at most."""


@dataclass
class _Pending:
    write: Write
    done: asyncio.Future[Any]
    outcome: Any = None
    error: Exception | None = None


class GroupCommit:
    """Owns the writer thread of one process. Use inside a running event loop."""

    def __init__(self, engine: Engine, observe: Callable[[int, float], None]) -> None:
        """`observe` is told each group's size and its seconds from begin to commit."""
        self._engine = engine
        self._observe = observe
        self._pending: deque[_Pending] = deque()
        self._wake = asyncio.Event()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ledger-writer")
        self._closing = False
        self._task = asyncio.create_task(self._run())

    async def submit(self, write: Write) -> Any:
        """What the write was settled as, once durable. Raises what settling it raised, or
        LedgerUnavailableError."""
        if self._closing:
            raise LedgerUnavailableError("the service is shutting down")
        item = _Pending(write, asyncio.get_running_loop().create_future())
        self._pending.append(item)
        self._wake.set()
        return await item.done

    async def close(self) -> None:
        """Commits what is pending, then stops."""
        self._closing = True
        self._wake.set()
        await self._task
        self._writer.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._pending:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            size = min(len(self._pending), LARGEST_GROUP)
            group = [self._pending.popleft() for _ in range(size)]
            started = time.perf_counter()
            await loop.run_in_executor(self._writer, self._commit, group)
            self._observe(size, time.perf_counter() - started)
            for item in group:
                if item.done.cancelled():
                    continue
                if item.error is None:
                    item.done.set_result(item.outcome)
                else:
                    item.done.set_exception(item.error)

    def _commit(self, group: Sequence[_Pending]) -> None:
        """Runs in the writer thread. A lost race with another process for a key is run again: then
        the row that won is seen."""
        try:
            for last in (False, False, True):
                try:
                    self._attempt(group)
                    return
                except IntegrityError:
                    if last:
                        raise
        except Exception as error:
            for item in group:
                item.error = LedgerUnavailableError(f"the ledger did not commit: {error}")
                item.error.__cause__ = error

    def _attempt(self, group: Sequence[_Pending]) -> None:
        with self._engine.begin() as connection:
            view = load(connection, (item.write for item in group), now_us())
            for item in group:
                item.outcome, item.error = None, None
                try:
                    item.outcome = item.write.settle(view)
                except Exception as error:
                    item.error = error
            store(connection, view)
