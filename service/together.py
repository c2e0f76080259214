"""Together: what has just come for many accounts, folded by one call of the network.

An account of which there is more to fold than the newest interaction is recalled, alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from service.catalog import Catalog, Workflow
from service.fault_points import reach
from service.ledger.records import AccountKey, Head, Interaction
from service.memory.store import (
    MemoryStore,
    MemoryUnavailableError,
    PolicyIdentity,
    StoredMemory,
)
from service.metrics import Metrics
from service.recall import Recall, before

T = TypeVar("T")

log = logging.getLogger(__name__)


class Advance(NamedTuple):
    """One account whose head has moved."""

    workflow: Workflow
    key: AccountKey
    head: Head
    newest: Interaction | None
    """The interaction at `head`, when at hand."""


Ahead = asyncio.Task[Mapping[tuple[AccountKey, PolicyIdentity], StoredMemory]]
"""Memories that are being read before it is known what is to be folded into them."""


class Together:
    """Brings memories to their heads, many at once."""

    def __init__(
        self, memories: MemoryStore, recall: Recall, catalog: Catalog, metrics: Metrics
    ) -> None:
        self._memories = memories
        self._recall = recall
        self._catalog = catalog
        self._metrics = metrics

    def read_ahead(self, accounts: Iterable[AccountKey]) -> Ahead | None:
        """Begins to read the memories that these accounts are served from, where that takes a
        while; None where it does not."""
        if not self._memories.remote:
            return None
        wanted = [
            (key, workflow.policy.identity)
            for key in accounts
            if (workflow := self._catalog.workflows.get(key.workflow)) is not None
        ]
        return asyncio.create_task(self._ahead(wanted)) if wanted else None

    async def _ahead(
        self, wanted: list[tuple[AccountKey, PolicyIdentity]]
    ) -> Mapping[tuple[AccountKey, PolicyIdentity], StoredMemory]:
        try:
            found = await self._memories.get_many(wanted)
        except Exception as error:  # whoever needs them reads them again, and finds out
            log.warning("memories are not read ahead: %s", type(error).__name__)
            return {}
        pairs = zip(wanted, found, strict=True)
        return {one: memory for one, memory in pairs if isinstance(memory, StoredMemory)}

    async def advance(
        self, asked: Sequence[Advance], ahead: Ahead | None = None
    ) -> list[Exception | None]:
        """Brings memories to their heads, in this order where one account is named twice: those
        that are one interaction behind by one call of the network, the others one by one. What
        kept one from getting there is given, not raised. `ahead` are memories read before: those
        that are where they should be need not be read again."""
        together: dict[AccountKey, Advance] = {}
        locks: dict[AccountKey, asyncio.Lock] = {}
        alone: defaultdict[AccountKey, list[int]] = defaultdict(list)
        for i, one in enumerate(asked):
            lock = self._recall.lock(one.key)
            if one.newest is None or one.key in together or one.key in alone or lock.locked():
                alone[one.key].append(i)
            else:
                together[one.key] = one
                locks[one.key] = lock
        known = {} if ahead is None else await ahead
        settled = await self._advance_together(together, locks, known) if together else {}
        results: list[Exception | None] = []
        for i, one in enumerate(asked):
            if together.get(one.key) is one and one.key not in settled:
                alone[one.key].insert(0, i)
            results.append(settled.get(one.key))

        async def bring(of_one_account: list[int]) -> None:
            for i in of_one_account:
                one = asked[i]
                try:
                    await self._recall.at_head(one.workflow, one.key, one.head, one.newest)
                    results[i] = None
                except Exception as error:
                    results[i] = error

        await asyncio.gather(*map(bring, alone.values()))
        return results

    async def _advance_together(
        self,
        asked: Mapping[AccountKey, Advance],
        locks: Mapping[AccountKey, asyncio.Lock],
        ahead: Mapping[tuple[AccountKey, PolicyIdentity], StoredMemory],
    ) -> dict[AccountKey, MemoryUnavailableError | None]:
        """Folds the newest interaction into each memory that is right before it. The accounts that
        were settled so, with why a memory is not to be had; the others are not at their heads."""
        async with _all_of(locks):
            try:
                found = await self._right_before(asked, ahead)
            except MemoryUnavailableError as error:
                return dict.fromkeys(asked, error)
            settled: dict[AccountKey, MemoryUnavailableError | None] = {}
            groups: defaultdict[tuple[str, str, int], list[tuple[Advance, StoredMemory | None]]]
            groups = defaultdict(list)
            for one in asked.values():
                stored = found[one.key]
                if isinstance(stored, MemoryUnavailableError):
                    settled[one.key] = stored
                elif stored is not None and stored.head == one.head:
                    settled[one.key] = None
                elif one.newest and (stored or one.workflow.unknown).head == before(one.head):
                    served = one.workflow.name, one.workflow.policy_name, one.newest.spec_version
                    groups[served].append((one, stored))
            for group in groups.values():
                for some in _split(group, group[0][0].workflow.policy.parity.batch):
                    settled |= dict.fromkeys(await self._advance_group(some))
            return settled

    async def _right_before(
        self,
        asked: Mapping[AccountKey, Advance],
        ahead: Mapping[tuple[AccountKey, PolicyIdentity], StoredMemory],
    ) -> Mapping[AccountKey, StoredMemory | MemoryUnavailableError | None]:
        """The memories: as read ahead where the newest interaction comes right after that one,
        and nobody has stored it since; else as they are stored now."""
        found: dict[AccountKey, StoredMemory | MemoryUnavailableError | None] = {}
        unread: list[tuple[AccountKey, PolicyIdentity]] = []
        for key, one in asked.items():
            wanted = key, one.workflow.policy.identity
            early = ahead.get(wanted)
            if early is not None and early.head == before(one.head):
                found[key] = early
            else:
                unread.append(wanted)
        if unread:
            stored = await self._memories.get_many(unread)
            found |= {key: one for (key, _), one in zip(unread, stored, strict=True)}
        return found

    async def _advance_group(
        self, group: Sequence[tuple[Advance, StoredMemory | None]]
    ) -> set[AccountKey]:
        """Folds and stores those of one policy and spec; the accounts where that was done."""
        first = group[0][0]
        workflow = first.workflow
        assert first.newest is not None
        memories = [(stored or workflow.unknown).memory for _, stored in group]
        interactions = [one.newest for one, _ in group if one.newest is not None]
        try:
            spec = self._catalog.spec(workflow.name, first.newest.spec_version)
            folded, sound = workflow.fold_each(memories, interactions, spec)
        except Exception as error:  # whoever it is about will say so again, alone
            log.error("a group is folded one by one: %s", type(error).__name__)
            return set()
        reach("learn.folded")
        swaps = []
        actions = len(workflow.spec.actions)
        for (one, stored), memory, is_sound in zip(group, folded, sound, strict=True):
            if not is_sound:
                continue
            new = StoredMemory(workflow.with_rows(memory, actions), one.head)
            self._recall.keep_if_due(workflow, one.key, new)
            expected = stored.head if stored else None
            swaps.append((one.key, workflow.policy.identity, expected, new))
        swapped: Sequence[bool | MemoryUnavailableError]
        try:
            swapped = await self._memories.swap_many(swaps)
        except MemoryUnavailableError as error:
            swapped = [error] * len(swaps)
        reach("learn.stored")
        done = set()
        for (key, *_), outcome in zip(swaps, swapped, strict=True):
            if isinstance(outcome, MemoryUnavailableError):
                # The next decision finds it behind.
                self._metrics.memory_unavailable.inc()
                done.add(key)
            elif outcome:
                done.add(key)
            else:
                self._metrics.memory_conflicts.labels(workflow.name).inc()
        return done


@contextlib.asynccontextmanager
async def _all_of(locks: Mapping[AccountKey, asyncio.Lock]) -> AsyncIterator[None]:
    """Holds them all. Taken in key order: a lock just let go may have been promised to somebody,
    and two groups must not wait for each other in a circle."""
    held: list[asyncio.Lock] = []
    try:
        for key in sorted(locks):
            await locks[key].acquire()
            held.append(locks[key])
        yield
    finally:
        for lock in held:
            lock.release()


def _split(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
