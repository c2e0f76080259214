"""Recall: an account's memory, brought to its head by replaying what the ledger has above it.

Flushed, old, corrupt or foreign memories all heal here. The store is never believed over the
ledger, and one account's trouble is never another's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakValueDictionary

import numpy as np

from contract.policy import Memory
from service.catalog import Catalog, Workflow
from service.clock import Clock
from service.fault_points import reach
from service.ledger.ledger import Ledger
from service.ledger.records import (
    AccountKey,
    Head,
    Interaction,
    LedgerUnavailableError,
    Past,
    Snapshot,
)
from service.memory.codec import CorruptMemoryError, account_name, decode, encode
from service.memory.store import (
    MemoryStore,
    MemoryUnavailableError,
    StoredMemory,
)
from service.metrics import Metrics

BROUGHT_AT_ONCE = 2
"""Accounts that are brought over at once: whoever waits for a replay must find a reader free."""
FOLDS_AT_A_TIME = 100
"""Interactions that a replay folds before it lets others run."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class UnreadablePastError(Exception):
    """An account's past does not fold to a memory: the policy gave something that is not finite."""


@dataclass(frozen=True)
class Fold:
    """A memory, and how it came about."""

    memory: StoredMemory
    interactions: int
    """How many were folded to get there."""
    complete: bool
    """Whether nothing below was missing."""


class Recall:
    """Reads and folds memories."""

    def __init__(
        self,
        ledger: Ledger,
        memories: MemoryStore,
        catalog: Catalog,
        metrics: Metrics,
        clock: Clock,
        snapshot_every: int,
    ) -> None:
        """A memory is kept in the ledger every `snapshot_every` interactions."""
        self._ledger = ledger
        self._memories = memories
        self._catalog = catalog
        self._metrics = metrics
        self._clock = clock
        self._snapshot_every = snapshot_every
        self._locks: WeakValueDictionary[AccountKey, asyncio.Lock] = WeakValueDictionary()
        self._keeping: set[asyncio.Task[None]] = set()
        self._bringing: dict[AccountKey, asyncio.Task[None]] = {}
        """Accounts that are on their way to the policy that is to serve them."""
        self._turn = asyncio.Semaphore(BROUGHT_AT_ONCE)
        self._folder = ThreadPoolExecutor(1, thread_name_prefix="replay")

    def lock(self, key: AccountKey) -> asyncio.Lock:
        """Whoever folds or replays this account's past in this process holds it."""
        return self._locks.setdefault(key, asyncio.Lock())

    async def stored(
        self, asked: Sequence[tuple[Workflow, AccountKey]]
    ) -> Sequence[StoredMemory | MemoryUnavailableError | None]:
        """The memories as stored, None where there is none, an error where that is not to be had.
        One may be behind its head: the commit of whatever is made from it finds out."""
        found = await self._memories.get_many(
            [(key, workflow.policy.identity) for workflow, key in asked]
        )
        errors = [one for one in found if isinstance(one, MemoryUnavailableError)]
        if errors:
            self._metrics.memory_unavailable.inc()
            log.warning("%d memories are not to be had: %s", len(errors), errors[0])
        return found

    async def at_head(
        self, workflow: Workflow, key: AccountKey, head: Head, newest: Interaction | None = None
    ) -> StoredMemory:
        """The memory at `head` or above it. `newest` is the interaction at `head`, when at hand.

        Several for one account wait for each other, so that one replay serves them all. Raises
        MemoryUnavailableError when the store cannot be read, LedgerUnavailableError and
        UnreadablePastError; a store that cannot be written is counted and does not matter here.
        """
        identity = workflow.policy.identity
        async with self.lock(key):
            stored = await self._memories.get(key, identity)
            if stored is not None and stored.head == head:
                return stored
            known = stored or workflow.unknown
            if newest is not None and known.head == before(head):
                folded = await self._fold(workflow, known, [newest], head)
                reach("learn.folded")
                self.keep_if_due(workflow, key, folded)
                if await self._swap(workflow, key, stored.head if stored else None, folded):
                    reach("learn.stored")
                    return folded
                stored = await self._memories.get(key, identity)
            return await self._replay(workflow, key, stored)

    async def serving(self, workflow: Workflow, key: AccountKey) -> Workflow:
        """The workflow on the policy that this account is served by now.

        An account whose memory the policy before still has is served by that one until a replay
        in the background has brought it over. Raises MemoryUnavailableError.
        """
        before = workflow.before
        if before is None:
            return workflow
        found = await self.stored([(workflow, key), (before, key)])
        for one in found:
            if isinstance(one, MemoryUnavailableError):
                raise one
        brought, left = found
        if brought is not None or left is None:
            return workflow
        if key not in self._bringing:
            self._bringing[key] = asyncio.create_task(self._bring_over(workflow, key))
        return before

    async def bring_over(self, workflow: Workflow, key: AccountKey) -> bool:
        """Whether this replayed an account that the policy before still serves under the policy
        that is to serve it. Raises MemoryUnavailableError and LedgerUnavailableError."""
        before = workflow.before
        if before is None or key in self._bringing:
            return False
        found = await self._memories.get_many(
            [(key, workflow.policy.identity), (key, before.policy.identity)], keep_alive=False
        )
        for one in found:
            if isinstance(one, MemoryUnavailableError):
                raise one
        brought, left = found
        if brought is not None or left is None:
            return False
        try:
            async with self._turn:
                await self._replay(workflow, key, None)
        except UnreadablePastError as error:
            log.warning("an account is not brought over: %s", type(error).__name__)
            return False
        return True

    async def _bring_over(self, workflow: Workflow, key: AccountKey) -> None:
        """Replays an account under the policy that is to serve it from then on."""
        try:
            async with self._turn:
                await self._replay(workflow, key, None)
        except (MemoryUnavailableError, LedgerUnavailableError, UnreadablePastError) as error:
            log.warning("an account is not brought over yet: %s", type(error).__name__)
        finally:
            del self._bringing[key]

    async def fresh(
        self,
        workflow: Workflow,
        key: AccountKey,
        as_of: Head | None = None,
        *,
        from_snapshots: bool = False,
        start: StoredMemory | None = None,
    ) -> Fold:
        """The memory folded from the ledger alone, without a look at what is stored, up to the
        head or `as_of` an earlier one; above `start`, where that is a memory of this past. Raises
        LedgerUnavailableError and UnreadablePastError."""
        return await self._fold_past(workflow, key, start, from_snapshots, as_of)

    async def renew(self, workflow: Workflow, key: AccountKey, new: StoredMemory) -> None:
        """Stores `new` whatever is there: one that has moved on heals from it. Raises
        MemoryUnavailableError."""
        async with self.lock(key):
            await self._memories.put(key, workflow.policy.identity, new)

    async def forget(self, workflow: Workflow, key: AccountKey) -> None:
        """Deletes what is stored of an account by any policy that serves the workflow. Raises
        MemoryUnavailableError."""
        bringing = self._bringing.get(key)
        if bringing is not None:
            bringing.cancel()
            await asyncio.gather(bringing, return_exceptions=True)
        async with self.lock(key):
            for served in self._catalog.known(workflow.name):
                await self._memories.delete(key, served.policy.identity)

    async def _replay(
        self, workflow: Workflow, key: AccountKey, stored: StoredMemory | None
    ) -> StoredMemory:
        """Folds the ledger's interactions above `stored`, or above the newest snapshot, and keeps
        the result."""
        fold = await self._fold_past(workflow, key, stored, True, None)
        if fold.memory is stored:
            return stored
        if fold.interactions:
            cause = "missing" if stored is None else "behind"
            self._metrics.memory_rebuilds.labels(workflow.name, cause).inc()
            self._metrics.memory_rebuilt_interactions.labels(workflow.name).inc(fold.interactions)
        reach("rebuild.folded")
        try:
            await self._memories.put(key, workflow.policy.identity, fold.memory)
            reach("rebuild.stored")
        except MemoryUnavailableError as error:
            self._metrics.memory_unavailable.inc()
            log.warning("a memory was replayed and cannot be stored: %s", error)
        return fold.memory

    async def _fold_past(
        self,
        workflow: Workflow,
        key: AccountKey,
        stored: StoredMemory | None,
        from_snapshots: bool,
        as_of: Head | None,
    ) -> Fold:
        """Folds pages of the past until there is no more, keeping snapshots on the way."""
        digest = workflow.policy.identity.digest.hex() if from_snapshots else None
        memory, folded, complete, below = stored, 0, True, None
        while True:
            after = memory.head if memory else None
            past = await self._ledger.past(key, after, digest, as_of, below)
            if memory is None or past.start != memory.head:
                # Nothing at hand, or not a prefix of this past: of another generation, or ahead of
                # a ledger that was restored.
                try:
                    memory, folded, complete = self._start(workflow, key, past), 0, True
                except CorruptMemoryError as error:
                    self._metrics.memory_corrupt.labels(f"snapshot {error}").inc()
                    memory, below = None, past.start.position
                    continue
            complete &= past.complete
            keeps = as_of is None and digest is not None and complete
            memory = await self._fold_page(workflow, key, memory, past, keeps)
            folded += len(past.interactions)
            if memory.head >= past.head:
                break
        if not complete:
            self._metrics.memory_incomplete.labels(workflow.name).inc()
            log.warning("a past is replayed from where retention has left it")
        return Fold(memory, folded, complete)

    async def _fold_page(
        self, workflow: Workflow, key: AccountKey, memory: StoredMemory, past: Past, keeps: bool
    ) -> StoredMemory:
        """The memory at the page's end; with `keeps`, the last one on the way there that is due
        for a snapshot is kept."""
        if not past.interactions and past.end == memory.head:
            return memory
        rest = past.interactions
        due = past.end.position - past.end.position % self._snapshot_every
        if keeps and due > past.start.position:
            until = Head(past.end.generation, due)
            some = [one for one in rest if one.position <= due]
            rest = rest[len(some) :]
            memory = await self._fold(workflow, memory, some, until)
            self.keep(workflow, key, memory)
        return await self._fold(workflow, memory, rest, past.end)

    def _start(self, workflow: Workflow, key: AccountKey, past: Past) -> StoredMemory:
        """The memory that `past` begins at. Raises CorruptMemoryError."""
        if past.snapshot is None:
            return StoredMemory(workflow.blank(), past.start)
        kept = decode(past.snapshot, workflow.policy.identity, account_name(key))
        return StoredMemory(kept.memory, past.start)

    def keep_if_due(self, workflow: Workflow, key: AccountKey, stored: StoredMemory) -> None:
        """Keeps a memory every so many interactions."""
        if stored.head.position % self._snapshot_every == 0:
            self.keep(workflow, key, stored)

    def keep(self, workflow: Workflow, key: AccountKey, stored: StoredMemory) -> None:
        """Keeps a memory in the ledger, later: a bounded tail is then all that a replay reads."""
        identity = workflow.policy.identity
        snapshot = Snapshot(
            key,
            identity.policy,
            identity.digest.hex(),
            stored.head,
            encode(stored, identity, account_name(key)),
            self._clock(),
        )
        task = asyncio.create_task(self._keep(snapshot))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _keep(self, snapshot: Snapshot) -> None:
        try:
            await self._ledger.keep_snapshot(snapshot)
            reach("snapshot.committed")
        except LedgerUnavailableError as error:
            log.warning("a snapshot was not kept: %s", type(error).__name__)

    async def drain(self) -> None:
        """Returns when every snapshot on its way is kept."""
        await asyncio.gather(*self._keeping)

    async def close(self) -> None:
        """Gives up bringing accounts over, and drains."""
        for bringing in self._bringing.values():
            bringing.cancel()
        await asyncio.gather(*self._bringing.values(), return_exceptions=True)
        await self.drain()
        self._folder.shutdown(wait=False, cancel_futures=True)

    async def _swap(
        self, workflow: Workflow, key: AccountKey, expected: Head | None, new: StoredMemory
    ) -> bool:
        """Compare-and-set. A store that cannot be written counts as done: the next decision finds
        the memory behind."""
        try:
            swapped = await self._memories.swap(key, workflow.policy.identity, expected, new)
        except MemoryUnavailableError as error:
            self._metrics.memory_unavailable.inc()
            log.warning("a memory was folded and cannot be stored: %s", error)
            return True
        if not swapped:
            self._metrics.memory_conflicts.labels(workflow.name).inc()
        return swapped

    async def _fold(
        self,
        workflow: Workflow,
        stored: StoredMemory,
        interactions: Sequence[Interaction],
        end: Head,
    ) -> StoredMemory:
        """The memory at `end` with the interactions folded in, which follow it one by one."""
        loop = asyncio.get_running_loop()
        memory = stored.memory
        for start in range(0, len(interactions), FOLDS_AT_A_TIME):
            some = interactions[start : start + FOLDS_AT_A_TIME]
            if len(some) == 1:
                memory = self._fold_some(workflow, memory, some)
            else:
                memory = await loop.run_in_executor(
                    self._folder, self._fold_some, workflow, memory, some
                )
        if not all(np.isfinite(part).all() for part in memory):
            raise UnreadablePastError(f"policy {workflow.spec.policy} learned a memory that is NaN")
        return StoredMemory(memory, end)

    def _fold_some(
        self, workflow: Workflow, memory: Memory, interactions: Sequence[Interaction]
    ) -> Memory:
        memory = workflow.with_rows(memory, len(workflow.spec.actions))
        for interaction in interactions:
            spec = self._catalog.spec(workflow.name, interaction.spec_version)
            memory = workflow.fold(memory, interaction, spec)
        return memory


def _split(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def before(head: Head) -> Head:
    return Head(head.generation, head.position - 1)
