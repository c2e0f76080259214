"""What must happen later, on an in-process scheduler. Every job is idempotent and may be killed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from service.catalog import Catalog
from service.clock import Clock
from service.learn import Learner
from service.ledger.ledger import Ledger
from service.ledger.records import AccountKey, Head, LedgerUnavailableError
from service.memory.store import MemoryStore, MemoryUnavailableError
from service.metrics import Metrics
from service.recall import Recall

PAGE = 500
"""Rows that a job reads at a time."""
OVERLAP_US = 10_000_000
"""How far reconciling looks back behind where it got to: commits do not land in clock order."""
AT_START_US = 900_000_000
"""How far it looks back at start from the last change, for what a crash left. Older memories that
are behind heal when they are next asked for: the commit finds them out."""
ROUNDS_A_COUNT = 10
"""Accounts are counted by phase once in so many rounds: it reads them all."""

log = logging.getLogger(__name__)


class Jobs:
    """The scheduler and its jobs. `run_once` is one round of all of them."""

    def __init__(
        self,
        ledger: Ledger,
        memories: MemoryStore,
        recall: Recall,
        learner: Learner,
        catalog: Catalog,
        metrics: Metrics,
        clock: Clock,
        interval_seconds: float,
    ) -> None:
        self._ledger = ledger
        self._memories = memories
        self._recall = recall
        self._learner = learner
        self._catalog = catalog
        self._metrics = metrics
        self._clock = clock
        self._interval = interval_seconds
        # What a crash left is as old as the last change, however long ago that was.
        self._reconciled_to_us = min(clock(), ledger.changed_last_us() or 0) - AT_START_US
        self._rounds = 0

    async def run(self) -> None:
        """Rounds until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(self._interval)

    async def run_once(self) -> None:
        """One round. A failing job is logged and does not keep the others from running."""
        jobs: list[Callable[[], Awaitable[object]]] = [self.fold_defaults, self.reconcile]
        if self._rounds % ROUNDS_A_COUNT == 0:
            jobs.append(self.count_accounts)
        self._rounds += 1
        for job in jobs:
            try:
                await job()
            except (LedgerUnavailableError, MemoryUnavailableError) as error:
                log.warning("%s: %s", job.__name__, type(error).__name__)
            except Exception as error:
                log.error("%s failed: %s", job.__name__, type(error).__name__)

    async def fold_defaults(self) -> int:
        """Folds the default reward of every decision whose window has closed; how many."""
        folded = 0
        while True:
            due = await self._ledger.defaults_due(self._clock(), PAGE)
            results = await asyncio.gather(
                *(self._learner.fold_default(one) for one in due), return_exceptions=True
            )
            failed = [one for one in results if isinstance(one, BaseException)]
            folded += sum(one is not None for one in results) - len(failed)
            if failed:
                log.error("%d defaults not folded: %s", len(failed), type(failed[0]).__name__)
            if failed or len(due) < PAGE:
                return folded

    async def reconcile(self) -> int:
        """Brings every stored memory that is not at its account's head there; how many.

        Walks the accounts that changed since it last got to the end. Memories that are not stored
        are left alone: they are rebuilt when first asked for.
        """
        healed = 0
        while True:
            changed = await self._ledger.heads_changed(self._reconciled_to_us, PAGE)
            for key, head, _ in changed:
                try:
                    healed += await self._heal(key, head)
                except (LedgerUnavailableError, MemoryUnavailableError):
                    raise
                except Exception as error:  # one account's trouble is not the others'
                    log.error("an account is not reconciled: %s", type(error).__name__)
            if len(changed) < PAGE:
                self._reconciled_to_us = self._clock() - OVERLAP_US
                return healed
            # A page of accounts that all changed in one microsecond must not be walked for ever.
            self._reconciled_to_us = max(changed[-1][2], self._reconciled_to_us + 1)

    async def _heal(self, key: AccountKey, head: Head) -> bool:
        workflow = self._catalog.workflows.get(key.workflow)
        if workflow is None:
            return False
        stored = await self._memories.get(key, workflow.policy.identity, keep_alive=False)
        if stored is None or stored.head >= head:
            return False
        await self._recall.at_head(workflow, key, head)
        return True

    async def count_accounts(self) -> None:
        """Exports how many accounts there are by phase."""
        self._metrics.observe_phases(await self._ledger.phases())
