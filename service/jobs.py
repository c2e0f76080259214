"""What must happen later, on an in-process scheduler. Every job is idempotent and may be killed."""

from __future__ import annotations

import asyncio
import logging

from service.catalog import Catalog
from service.clock import Clock
from service.learn import Learner
from service.ledger.ledger import Ledger
from service.ledger.records import LedgerUnavailableError
from service.memory.store import MemoryStore, MemoryUnavailableError
from service.metrics import Metrics
from service.recall import Recall

PAGE = 500
"""Rows that one run of a job takes at most; what is left is taken by the next."""
OVERLAP_US = 5_000_000
"""How far reconciling looks back behind where it got to: commits do not land in clock order."""

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
        self._reconciled_to_us = 0

    async def run(self) -> None:
        """Rounds until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(self._interval)

    async def run_once(self) -> None:
        """One round. A failing job is logged and does not keep the others from running."""
        for job in (self.fold_defaults, self.reconcile, self.count_accounts):
            try:
                await job()
            except (LedgerUnavailableError, MemoryUnavailableError) as error:
                log.warning("%s: %s", job.__name__, error)
            except Exception:
                log.exception("%s failed", job.__name__)

    async def fold_defaults(self) -> int:
        """Folds the default reward of every decision whose window has closed; how many."""
        due = await self._ledger.defaults_due(self._clock(), PAGE)
        folded = await asyncio.gather(*(self._learner.fold_default(one) for one in due))
        return sum(one is not None for one in folded)

    async def reconcile(self) -> int:
        """Brings every stored memory that is not at its account's head there; how many.

        Memories that are not stored are left alone: they are rebuilt when first asked for.
        """
        since = self._reconciled_to_us
        changed = await self._ledger.heads_changed(since, PAGE)
        healed = 0
        for key, head, _ in changed:
            workflow = self._catalog.workflows.get(key.workflow)
            if workflow is None:
                continue
            stored = await self._memories.get(key, workflow.policy.identity)
            if stored is not None and stored.head != head:
                await self._recall.at_head(workflow, key, head)
                healed += 1
        if len(changed) == PAGE:  # the past is still being walked
            self._reconciled_to_us = max(changed[-1][2], since + 1)
        else:
            self._reconciled_to_us = max(since, self._clock() - OVERLAP_US)
        return healed

    async def count_accounts(self) -> None:
        """Exports how many accounts there are by phase."""
        self._metrics.observe_phases(await self._ledger.phases())
