"""What must happen later, run by `service.scheduler`. Every job is idempotent and may be killed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from service.alarms import Watch
from service.catalog import Catalog, Workflow
from service.clock import Clock
from service.curves import Curves
from service.fault_points import reach
from service.learn import Learner
from service.ledger.leases import Kept
from service.ledger.ledger import Ledger
from service.ledger.records import AccountKey, Head, LedgerUnavailableError
from service.ledger.scan import read_keys
from service.memory.store import MemoryStore, MemoryUnavailableError
from service.metrics import Metrics
from service.recall import Recall
from service.rollouts.kill_switch import KillSwitch
from service.rollouts.operate import Rollouts
from service.scheduler import Run
from service.settings import Settings

PAGE = 500
"""Rows that a job reads at a time."""
OVERLAP_US = 10_000_000
"""How far reconciling looks back behind where it got to: commits do not land in clock order."""
SWEEP_US = 900_000_000
"""How far the sweep at start looks back from the last change, for what a crash left. Older memories
that are behind heal when they are next asked for: the commit finds them out."""
PAGES_A_RUN = 40
"""Pages that a sweep reads before a run ends."""
log = logging.getLogger(__name__)


class Jobs:
    """The jobs, each one run of it. `kept` is what the run before wrote down."""

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
        rollouts: Rollouts,
        kill_switch: KillSwitch,
        watch: Watch,
    ) -> None:
        self._ledger = ledger
        self._memories = memories
        self._recall = recall
        self._learner = learner
        self._catalog = catalog
        self._metrics = metrics
        self._clock = clock
        self._settings = settings
        self._rollouts = rollouts
        self._kill_switch = kill_switch
        self._watch = watch
        # What a crash left is as old as the last change, however long ago that was.
        last = min(clock(), ledger.changed_last_us() or 0)
        self._to_sweep_from_us: int | None = last - SWEEP_US
        """Where this process's first sweep begins; None once it began."""
        self._kept: Kept = {}

    def runs(self) -> dict[str, Run]:
        """The jobs by name."""
        return {
            "defaults": lambda _: self.fold_defaults(),
            "reconcile": self.reconcile,
            "migrate": self.migrate,
            "retention": lambda _: self.clear(),
            "alarms": self._watch.look,
            "holds": lambda _: self._watch.observe(),
            "count": lambda _: self.count_accounts(),
            "curves": Curves(self._ledger, self._clock).count,
            "follow": lambda _: self.follow(),
            "rollouts": lambda _: self._rollouts.evaluate(self._recall, self._clock()),
        }

    async def follow(self) -> None:
        """Takes note of what operators did elsewhere: switches first, they need no ledger."""
        await self._kill_switch.sync()
        await self._rollouts.refresh()

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

    async def reconcile(self, kept: Kept | None = None) -> int:
        """Brings stored memories that are not at their account's head there; how many.

        Swept is what changed lately at start, and everything once the store may have gone back in
        time. Otherwise a page a run of what changed last is looked at, for what another replica
        committed and did not live to fold. Memories that are not stored are left alone: they are
        rebuilt when first asked for.
        """
        kept = self._kept if kept is None else kept
        incarnation = await self._memories.incarnation()
        sweep: int | None = kept.get("swept_to_us")
        if (at_start := self._to_sweep_from_us) is not None:
            sweep = at_start if sweep is None else min(sweep, at_start)
            self._to_sweep_from_us = None
        if kept.get("incarnation", incarnation) != incarnation:
            sweep = 0
        kept |= {"incarnation": incarnation, "swept_to_us": sweep}
        healed = 0
        for _ in range(PAGES_A_RUN):
            if sweep is None:
                break
            changed = await self._ledger.heads_changed(sweep, PAGE)
            healed += await self._heal(changed)
            # A page of accounts that all changed in one microsecond must not be walked again.
            sweep = None if len(changed) < PAGE else max(changed[-1][2], sweep + 1)
            kept["swept_to_us"] = sweep
        since = kept.get("reconciled_to_us", self._clock() - OVERLAP_US)
        changed = await self._ledger.heads_changed(since, PAGE)
        healed += await self._heal(changed)
        # With more than a page a run it skips: this is a second look, not what healing rests on.
        kept["reconciled_to_us"] = self._clock() - OVERLAP_US
        return healed

    async def migrate(self, kept: Kept | None = None) -> int:
        """Replays accounts that the policy before still serves under the policy that is to serve
        them, without waiting for their next decision; how many.

        A page after another by name, from where the run before got to; begins anew for another
        policy. An account that has moved on meanwhile is brought to its head when it is read.
        """
        kept = self._kept if kept is None else kept
        brought = 0
        for workflow in self._catalog.workflows.values():
            if workflow.before is not None:
                brought += await self._migrate(workflow, kept)
        return brought

    async def _migrate(self, workflow: Workflow, kept: Kept) -> int:
        policy = workflow.policy.identity.digest.hex()
        place = kept.setdefault("migrate", {}).setdefault(workflow.name, {})
        if place.get("policy") != policy:
            place.clear()
            place |= {"policy": policy, "after": None, "done": False}
        brought = 0
        for _ in range(PAGES_A_RUN):
            if place["done"]:
                break
            after = place["after"]
            keys = await self._ledger.read(read_keys(workflow.name, after and tuple(after), PAGE))
            for key in keys:
                brought += await self._recall.bring_over(workflow, key)
                reach("migrate.brought")
                place["after"] = [key.tenant, key.account_id]
            place["done"] = len(keys) < PAGE
        return brought

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
        if self._settings.retention_days is None:
            return 0
        before_us = self._clock() - round(self._settings.retention_days * 86_400e6)
        cleared = 0
        for workflow in self._catalog.workflows.values():
            digests = [
                served.policy.identity.digest.hex()
                for served in self._catalog.serving(workflow.name)
            ]
            cleared += await self._ledger.clear(workflow.name, digests, before_us)
        return cleared
