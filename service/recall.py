"""Recall: an account's memory, brought to its head by replaying what the ledger has above it.

Flushed, old, corrupt or foreign memories all heal here. The store is never believed over the
ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.catalog import Catalog, Workflow
from service.ledger.ledger import Ledger
from service.ledger.records import AccountKey, Head, Interaction
from service.memory.store import MemoryStore, StoredMemory
from service.metrics import Metrics

ATTEMPTS = 3
"""How often a lost compare-and-set is tried again; then the replayed memory is put as it is."""


class Recall:
    """Reads and folds memories."""

    def __init__(
        self, ledger: Ledger, memories: MemoryStore, catalog: Catalog, metrics: Metrics
    ) -> None:
        self._ledger = ledger
        self._memories = memories
        self._catalog = catalog
        self._metrics = metrics

    async def latest(self, asked: Sequence[tuple[Workflow, AccountKey]]) -> list[StoredMemory]:
        """The memories as stored, or rebuilt where there is none. One may be behind the head: the
        commit of whatever is made from it finds out. Raises MemoryUnavailableError and
        LedgerUnavailableError."""
        found = await self._memories.get_many(
            [(key, workflow.policy.identity) for workflow, key in asked]
        )
        missing = [i for i, stored in enumerate(found) if stored is None]
        rebuilt = await asyncio.gather(*(self._replay(*asked[i], None, "missing") for i in missing))
        by_place = dict(zip(missing, rebuilt, strict=True))
        return [stored or by_place[i] for i, stored in enumerate(found)]

    async def at_head(
        self, workflow: Workflow, key: AccountKey, head: Head, newest: Interaction | None = None
    ) -> StoredMemory:
        """The memory at `head` or above it. `newest` is the interaction at `head`, when at hand.

        Raises MemoryUnavailableError and LedgerUnavailableError.
        """
        identity = workflow.policy.identity
        for _ in range(ATTEMPTS):
            stored = await self._memories.get(key, identity)
            if stored is not None and stored.head == head:
                return stored
            if (
                newest is not None
                and stored is not None
                and stored.head == Head(head.generation, head.position - 1)
            ):
                folded = self._fold(workflow, stored, head, [newest])
                if await self._memories.swap(key, identity, stored.head, folded):
                    return folded
                self._metrics.memory_conflicts.labels(workflow.name).inc()
                continue
            return await self._replay(workflow, key, stored, "behind" if stored else "missing")
        return await self._replay(workflow, key, None, "contended")

    async def _replay(
        self, workflow: Workflow, key: AccountKey, stored: StoredMemory | None, cause: str
    ) -> StoredMemory:
        """Folds the ledger's interactions above `stored` and keeps the result."""
        head, past = await self._ledger.past(key, stored.head if stored else None)
        is_prefix = stored is not None and len(past) == head.position - stored.head.position
        if stored is None or not is_prefix or stored.head.generation != head.generation:
            stored = StoredMemory(workflow.blank(), Head(head.generation, 0))
        if past:
            self._metrics.memory_rebuilds.labels(workflow.name, cause).inc()
        folded = self._fold(workflow, stored, head, past)
        await self._memories.put(key, workflow.policy.identity, folded)
        return folded

    def _fold(
        self, workflow: Workflow, stored: StoredMemory, head: Head, past: list[Interaction]
    ) -> StoredMemory:
        memory = workflow.with_rows(stored.memory, len(workflow.spec.actions))
        for interaction in past:
            spec = self._catalog.spec(workflow.name, interaction.spec_version)
            memory = workflow.fold(memory, interaction, spec)
        return StoredMemory(memory, head)
