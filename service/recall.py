"""Recall: an account's memory, brought to its head by replaying what the ledger has above it.

Flushed, old, corrupt or foreign memories all heal here. The store is never believed over the
ledger, and one account's trouble is never another's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from weakref import WeakValueDictionary

import numpy as np

from service.catalog import Catalog, Workflow
from service.ledger.ledger import Ledger
from service.ledger.records import AccountKey, Head, Interaction
from service.memory.store import MemoryStore, MemoryUnavailableError, StoredMemory
from service.metrics import Metrics

FOLDS_AT_A_TIME = 100
"""Interactions that a replay folds before it lets others run."""

log = logging.getLogger(__name__)


class UnreadablePastError(Exception):
    """An account's past does not fold to a memory: the policy gave something that is not finite."""


class Recall:
    """Reads and folds memories."""

    def __init__(
        self, ledger: Ledger, memories: MemoryStore, catalog: Catalog, metrics: Metrics
    ) -> None:
        self._ledger = ledger
        self._memories = memories
        self._catalog = catalog
        self._metrics = metrics
        self._locks: WeakValueDictionary[AccountKey, asyncio.Lock] = WeakValueDictionary()

    async def stored(
        self, asked: Sequence[tuple[Workflow, AccountKey]]
    ) -> list[StoredMemory | None]:
        """The memories as stored, None where there is none. One may be behind its head: the commit
        of whatever is made from it finds out. Raises MemoryUnavailableError."""
        return await self._memories.get_many(
            [(key, workflow.policy.identity) for workflow, key in asked]
        )

    async def at_head(
        self, workflow: Workflow, key: AccountKey, head: Head, newest: Interaction | None = None
    ) -> StoredMemory:
        """The memory at `head` or above it. `newest` is the interaction at `head`, when at hand.

        Several for one account wait for each other, so that one replay serves them all. Raises
        MemoryUnavailableError when the store cannot be read, LedgerUnavailableError and
        UnreadablePastError; a store that cannot be written is counted and does not matter here.
        """
        identity = workflow.policy.identity
        async with self._locks.setdefault(key, asyncio.Lock()):
            stored = await self._memories.get(key, identity)
            if stored is not None and stored.head == head:
                return stored
            known = stored or workflow.unknown
            if newest is not None and known.head == _before(head):
                folded = await self._fold(workflow, known, head, [newest])
                if await self._swap(workflow, key, stored.head if stored else None, folded):
                    return folded
                stored = await self._memories.get(key, identity)
            return await self._replay(workflow, key, stored)

    async def _replay(
        self, workflow: Workflow, key: AccountKey, stored: StoredMemory | None
    ) -> StoredMemory:
        """Folds the ledger's interactions above `stored` and keeps the result."""
        head, past = await self._ledger.past(key, stored.head if stored else None)
        cause = "missing" if stored is None else "behind"
        if stored is None or len(past) != head.position - stored.head.position:
            # Not a prefix of this past: of another generation, or ahead of a restored ledger.
            stored = StoredMemory(workflow.blank(), Head(head.generation, 0))
        if past:
            self._metrics.memory_rebuilds.labels(workflow.name, cause).inc()
        folded = await self._fold(workflow, stored, head, past)
        try:
            await self._memories.put(key, workflow.policy.identity, folded)
        except MemoryUnavailableError as error:
            self._metrics.memory_unavailable.inc()
            log.warning("a memory was replayed and cannot be stored: %s", error)
        return folded

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
        self, workflow: Workflow, stored: StoredMemory, head: Head, past: list[Interaction]
    ) -> StoredMemory:
        memory = workflow.with_rows(stored.memory, len(workflow.spec.actions))
        for folded, interaction in enumerate(past, start=1):
            spec = self._catalog.spec(workflow.name, interaction.spec_version)
            memory = workflow.fold(memory, interaction, spec)
            if folded % FOLDS_AT_A_TIME == 0:
                await asyncio.sleep(0)
        if not all(np.isfinite(part).all() for part in memory):
            raise UnreadablePastError(f"policy {workflow.spec.policy} learned a memory that is NaN")
        return StoredMemory(memory, head)


def _before(head: Head) -> Head:
    return Head(head.generation, head.position - 1)
