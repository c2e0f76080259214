"""A ledger and its memories opened beside the service that owns them, to check and rebuild."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from service.catalog import Catalog, open_catalog
from service.clock import now_us
from service.ledger.reading import ReadLedger, open_to_read
from service.memory.store import MemoryStore
from service.metrics import Metrics
from service.pins import read_pins
from service.recall import Recall
from service.replay import Rebuilder
from service.runtime import open_memories
from service.settings import Settings
from service.verify import Verifier


@dataclass(frozen=True)
class Beside:
    """What can be done with them from another process."""

    ledger: ReadLedger
    catalog: Catalog
    memories: MemoryStore
    verifier: Verifier
    rebuilder: Rebuilder
    shares_memories: bool
    """Whether the memories are the service's own; in the embedded profile those are in its process
    alone, and none are found here."""


@contextlib.asynccontextmanager
async def open_beside(settings: Settings) -> AsyncIterator[Beside]:
    """Reads the ledger, and reads and writes the memories in Redis. Raises SpecError, BundleError,
    SettingError, LedgerUnavailableError and MemoryUnavailableError."""
    ledger = open_to_read(settings.ledger)
    try:
        pins = read_pins(settings.policy_pins)
        catalog = open_catalog(settings.workflows, settings.policies, ledger, now_us(), pins)
        metrics = Metrics()
        memories = open_memories(settings, ledger, metrics)
        try:
            await memories.ping()
            recall = Recall(ledger, memories, catalog, metrics, now_us, settings.snapshot_every)
            verifier = Verifier(ledger, memories, recall, catalog)
            rebuilder = Rebuilder(ledger, memories, recall)
            shared = settings.redis_url is not None
            yield Beside(ledger, catalog, memories, verifier, rebuilder, shared)
        finally:
            await memories.close()
    finally:
        await ledger.close()
