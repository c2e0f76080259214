"""What must happen later, on an in-process scheduler. Every job is idempotent and may be killed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from service.catalog import Catalog
from service.clock import Clock
from service.learn import Learner
from service.ledger.ledger import Ledger
from service.ledger.records import AccountKey, Head, LedgerUnavailableError
from service.memory.store import MemoryStore, MemoryUnavailableError
from service.metrics import Metrics
from service.recall import Recall
from service.settings import Settings

PAGE = 500
"""Rows that a job reads at a time."""
OVERLAP_US = 10_000_000
"""How far reconciling looks back behind where it got to: commits do not land in clock order."""
SWEEP_US = 900_000_000
"""How far the sweep at start looks back from the last change, for what a crash left. Older memories
that are behind heal when they are next asked for: the commit finds them out."""
PAGES_A_ROUND = 40
"""Pages that a sweep reads before the other jobs have their turn."""
ROUNDS_A_COUNT = 30
"""Accounts are counted by phase once in so many rounds: it reads them all."""
ROUNDS_A_CLEARANCE = 600
"""What retention lets go of is looked for once in so many rounds."""

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
        settings: Settings,
    ) -> None:
        self._ledger = ledger
        self._memories = memories
        self._recall = recall
        self._learner = learner
        self._catalog = catalog
        self._metrics = metrics
        self._clock = clock
        self._settings = settings
        # What a crash left is as old as the last change, however long ago that was.
        last = min(clock(), ledger.changed_last_us() or 0)
        self._swept_to_us: int | None = last - SWEEP_US
        """Where a sweep has got to; None when there is nothing to sweep."""
        self._reconciled_to_us = clock() - OVERLAP_US
        self._incarnation = ""
        self._rounds = 0

    async def run(self) -> None:
        """Rounds until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(self._settings.job_interval_seconds)

    async def run_once(self) -> None:
        """One round. A failing job is logged and does not keep the others from running."""
        jobs: list[Callable[[], Awaitable[object]]] = [self.fold_defaults, self.reconcile]
        if self._rounds % ROUNDS_A_COUNT == 0:
            jobs.append(self.count_accounts)
        if self._rounds % ROUNDS_A_CLEARANCE == 0 and self._settings.retention_days is not None:
            jobs.append(self.clear)
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
        """Brings stored memories that are not at their account's head there; how many.

        Swept is what changed lately at start, and everything once the store may have gone back in
        time. Otherwise a page a round of what changed last is looked at, for what another replica
        committed and did not live to fold. Memories that are not stored are left alone: they are
        rebuilt when first asked for.
        """
        incarnation = await self._memories.incarnation()
        if self._incarnation not in ("", incarnation):
            self._swept_to_us = 0
        self._incarnation = incarnation
        healed = 0
        for _ in range(PAGES_A_ROUND):
            if self._swept_to_us is None:
                break
            changed = await self._ledger.heads_changed(self._swept_to_us, PAGE)
            healed += await self._heal(changed)
            if len(changed) < PAGE:
                self._swept_to_us = None
            else:  # a page of accounts that all changed in one microsecond must not be walked again
                self._swept_to_us = max(changed[-1][2], self._swept_to_us + 1)
        changed = await self._ledger.heads_changed(self._reconciled_to_us, PAGE)
        healed += await self._heal(changed)
        # With more than a page a round it skips: this is a second look, not what healing rests on.
        self._reconciled_to_us = self._clock() - OVERLAP_US
        return healed

    async def _heal(self, changed: Sequence[tuple[AccountKey, Head, int]]) -> int:
        """Brings those of the accounts' stored memories that are behind to the head; how many.
        Raises MemoryUnavailableError when one is not to be had, the others being healed."""
        asked = [
            (served, key, head)
            for key, head, _ in changed
            for served in self._catalog.serving(key.workflow)
        ]
        found = await self._memories.get_many(
            [(key, served.policy.identity) for served, key, _ in asked], keep_alive=False
        )
        healed, unavailable = 0, None
        for (served, key, head), stored in zip(asked, found, strict=True):
            if isinstance(stored, MemoryUnavailableError):
                unavailable = stored
            elif stored is not None and stored.head < head:
                try:
                    await self._recall.at_head(served, key, head)
                    healed += 1
                except (LedgerUnavailableError, MemoryUnavailableError):
                    raise
                except Exception as error:  # one account's trouble is not the others'
                    log.error("an account is not reconciled: %s", type(error).__name__)
        if unavailable is not None:
            raise unavailable
        return healed

    async def count_accounts(self) -> None:
        """Exports how many accounts there are by phase."""
        self._metrics.observe_phases(await self._ledger.phases())

    async def clear(self) -> int:
        """Deletes events that are older than retention says and that a kept memory of every policy
        that serves their workflow has folded; how many decisions."""
        assert self._settings.retention_days is not None
        before_us = self._clock() - round(self._settings.retention_days * 86_400e6)
        cleared = 0
        for workflow in self._catalog.workflows.values():
            digests = [
                served.policy.identity.digest.hex()
                for served in self._catalog.serving(workflow.name)
            ]
            cleared += await self._ledger.clear(workflow.name, digests, before_us)
        return cleared
