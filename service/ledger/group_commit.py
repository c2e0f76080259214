"""Group commit: concurrent writes share one transaction, one thread and one fsync.

A write that is refused fails alone and changes nothing; when the commit itself fails, every write
of the group fails and nothing of it was kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)

from service.batching import BacklogFullError, Batcher
from service.fault_points import reach
from service.ledger.records import AccountKey, LedgerUnavailableError
from service.ledger.rows import Hash, load, store, store_rows
from service.ledger.settle import (
    DecisionWrite,
    DefaultWrite,
    FeedbackWrite,
    SnapshotWrite,
    Write,
)
from service.ledger.statements import committed
from service.ledger.view import DecisionKey

LARGEST_GROUP = 256
"""Writes in one transaction at most."""
WRITERS = 3
"""Groups that one process has a database of many writers commit at once."""
OWNERS = 100_000
"""Decisions whose account is remembered, so that it can be locked before they are read."""
LOST_RACES = 2
"""How often a group is run again after another process took a key of it first."""

_IN_TRANSACTION: Mapping[type, str] = {
    DecisionWrite: "decide.in_transaction",
    FeedbackWrite: "learn.in_transaction",
    DefaultWrite: "default.in_transaction",
    SnapshotWrite: "snapshot.in_transaction",
}
"""The fault point of a group that holds such a write."""

R = TypeVar("R")

log = logging.getLogger(__name__)


class GroupCommit:
    """Owns the writer thread of one process. Use inside a running event loop."""

    def __init__(
        self,
        engine: Engine,
        upkeep: Engine,
        tombstone: Hash,
        timeout_seconds: float,
        observe: Callable[[int, float], None],
    ) -> None:
        """Groups are written on `engine`, what is done alone on `upkeep`. `observe` is told each
        group's size and its seconds from begin to commit."""
        self._engine = engine
        self._upkeep = upkeep
        self._tombstone = tombstone
        self._timeout = timeout_seconds
        self._observe = observe
        # SQLite has one writer at a time. Elsewhere one group loads its rows while another waits
        # for the disk; accounts that both need are locked by one of them.
        writers = 1 if engine.dialect.name == "sqlite" else WRITERS
        self._writer = ThreadPoolExecutor(writers, thread_name_prefix="ledger-writer")
        self._writes: Batcher[Sequence[Write], list[Any]] = Batcher(
            self._serve, LARGEST_GROUP, at_once=writers
        )
        self._owners: OrderedDict[DecisionKey, AccountKey] = OrderedDict()
        """Whose the decisions are that this process came across last; that never changes."""
        self._closed = False

    async def submit(self, write: Write) -> Any:
        """What the write was settled as, once durable. Raises what settling it raised, or
        LedgerUnavailableError: then it may still be committed later, and the same ids ask again."""
        (outcome,) = await self.submit_all([write])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def submit_all(self, writes: Sequence[Write]) -> list[Any]:
        """Each write's outcome, or the exception it was refused with. Raises
        LedgerUnavailableError when there is no telling."""
        if self._closed:
            raise LedgerUnavailableError("the service is shutting down")
        try:
            return await asyncio.wait_for(self._writes.ask(writes), self._timeout)
        except TimeoutError as error:
            raise LedgerUnavailableError("the ledger did not commit in time") from error
        except BacklogFullError as error:
            raise LedgerUnavailableError("too many writes are waiting for the ledger") from error

    def owners(self, keys: Iterable[DecisionKey]) -> set[AccountKey]:
        """Whose these decisions are, as far as this process came across them lately."""
        found = map(self._owners.get, keys)
        return {owner for owner in found if owner is not None}

    async def alone(self, work: Callable[[Connection], R]) -> R:
        """What `work` does in a transaction of its own, beside groups that others may be writing:
        it takes the locks it needs. Raises what it raises, and LedgerUnavailableError."""
        if self._closed:
            raise LedgerUnavailableError("the service is shutting down")
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._alone, work)

    async def close(self) -> None:
        """Commits what is pending, then stops; a ledger that hangs is not waited for for ever."""
        self._closed = True
        try:
            await asyncio.wait_for(self._writes.drain(), self._timeout)
        except TimeoutError:
            log.error("the ledger hangs: what it was not asked to commit yet is not acknowledged")
        self._writer.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, asked: list[Sequence[Write]]) -> list[list[Any] | Exception]:
        started = time.perf_counter()
        writes = [write for one in asked for write in one]
        loop = asyncio.get_running_loop()
        outcomes = iter(await loop.run_in_executor(self._writer, self._commit_all, writes))
        self._observe(len(writes), time.perf_counter() - started)
        return [[next(outcomes) for _ in one] for one in asked]

    def _commit_all(self, writes: list[Write]) -> list[Any]:
        """All of them in order, in groups that are not too large; in the writer thread."""
        outcomes: list[Any] = []
        for start in range(0, len(writes), LARGEST_GROUP):
            outcomes += self._commit(writes[start : start + LARGEST_GROUP])
        return outcomes

    def _commit(self, group: Sequence[Write]) -> list[Any]:
        """Each write's outcome or the exception it is refused with.

        A lost race with another process for a key is run again: then the row that won is seen. So
        is a group whose connection broke: what of it was committed is found by its ids. A row that
        the database itself refuses is found by halves and fails alone.
        """
        try:
            for _ in range(LOST_RACES):
                try:
                    return self._attempt(group)
                except IntegrityError:
                    continue
                except DBAPIError as error:  # the server was restarted since the last group
                    if not error.connection_invalidated:
                        raise
            return self._attempt(group)
        except Exception as error:
            whole = isinstance(error, OperationalError | InterfaceError | OSError)
            if whole or len(group) == 1:
                return [_unavailable(error)] * len(group)
            half = len(group) // 2
            return self._commit(group[:half]) + self._commit(group[half:])

    def _attempt(self, group: Sequence[Write]) -> list[Any]:
        outcomes: list[Any] = []
        with self._engine.begin() as connection:
            view = load(connection, group, self._tombstone, self._owners)
            for write in group:
                try:
                    outcomes.append(write.settle(view))
                except Exception as error:
                    outcomes.append(error)
            store(connection, view)
            with committed(connection):
                store_rows(connection, view)
                for kind in {type(write) for write in group} & _IN_TRANSACTION.keys():
                    reach(_IN_TRANSACTION[kind])
        for key, decision in view.decisions.items():
            self._owners[key] = decision.key
        while len(self._owners) > OWNERS:
            self._owners.popitem(last=False)
        return outcomes

    def _alone(self, work: Callable[[Connection], R]) -> R:
        try:
            with self._upkeep.begin() as connection:
                return work(connection)
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable(error) from error


def _unavailable(error: Exception) -> LedgerUnavailableError:
    """The type alone: a driver's text may hold what customers sent."""
    cause = getattr(error, "orig", None) or error
    refused = LedgerUnavailableError(f"not committed: {type(cause).__name__}")
    refused.__cause__ = error
    return refused
