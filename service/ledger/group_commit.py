"""Group commit: concurrent writes share one transaction, one thread and one fsync.

A write is a function of a connection. One that fails fails alone, in its own savepoint; when the
commit itself fails, every write of the group fails and nothing of it was kept.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from service.ledger.records import AccountKey, LedgerUnavailableError

R = TypeVar("R")

LARGEST_GROUP = 256
"""Writes in one transaction at most."""


@dataclass
class _Pending:
    key: AccountKey
    write: Callable[[Connection], Any]
    done: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = field(default=None)


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

    async def submit(self, key: AccountKey, write: Callable[[Connection], R]) -> R:
        """What `write` returned, once durable. Raises what it raised, or LedgerUnavailableError.

        `write` may run twice (in two savepoints, the first rolled back): it must not act outside
        its connection.
        """
        if self._closing:
            raise LedgerUnavailableError("the service is shutting down")
        item = _Pending(key, write, asyncio.get_running_loop().create_future())
        self._pending.append(item)
        self._wake.set()
        result: R = await item.done
        return result

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
                    item.done.set_result(item.result)
                else:
                    item.done.set_exception(item.error)

    def _commit(self, group: Sequence[_Pending]) -> None:
        """Runs in the writer thread. Account locks are taken in key order, so that the groups of
        two processes cannot wait for each other; within one account, order of arrival."""
        try:
            with self._engine.begin() as connection:
                for item in sorted(group, key=lambda item: item.key):
                    _attempt(item, connection)
        except Exception as error:
            for item in group:
                item.error = LedgerUnavailableError(f"the ledger did not commit: {error}")
                item.error.__cause__ = error


def _attempt(item: _Pending, connection: Connection) -> None:
    """Runs one write in a savepoint. A lost race for a key is tried once more: the second time it
    sees the row that won."""
    for last in (False, True):
        try:
            with connection.begin_nested():
                item.result = item.write(connection)
            return
        except IntegrityError as error:
            if last:
                item.error = LedgerUnavailableError(f"the ledger refused a row: {error}")
        except SQLAlchemyError:
            raise
        except Exception as error:
            item.error = error
            return
