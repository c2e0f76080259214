"""Memories folded afresh from the ledger: from nothing, or, where retention has deleted what is
older, from the oldest memory that it kept.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from contract.policy import Memory
from service.catalog import Workflow
from service.ledger.ledger import Ledger
from service.ledger.records import Account, AccountKey, AccountUnknownError, Head, Snapshot
from service.ledger.scan import Scope, read_accounts, read_snapshots
from service.memory.codec import CorruptMemoryError, account_name, decode
from service.memory.store import MemoryStore, StoredMemory
from service.recall import Recall


@dataclass(frozen=True)
class Rebuilt:
    """One account's memory, folded afresh and stored."""

    key: AccountKey
    policy: str
    head: Head
    interactions: int
    """How many were folded."""
    digest: str
    was_equal: bool | None
    """Whether what was stored was this very memory; None: nothing was, or one of another head."""
    complete: bool
    """Whether nothing of the past is missing."""
    seconds: float


@dataclass(frozen=True)
class RebuiltPage:
    """Some accounts of a workflow, rebuilt."""

    accounts: int
    interactions: int
    different: int
    """Stored memories at their head that were not the fold of their past."""
    seconds: float
    digest: str
    next: str | None
    """Where the next page begins, above this account."""


class Rebuilder:
    """Folds and stores memories anew, whatever is stored."""

    def __init__(self, ledger: Ledger, memories: MemoryStore, recall: Recall) -> None:
        self._ledger = ledger
        self._memories = memories
        self._recall = recall

    async def account(self, workflow: Workflow, key: AccountKey) -> Rebuilt:
        """Rebuilds one. Raises AccountUnknownError, LedgerUnavailableError, UnreadablePastError
        and MemoryUnavailableError."""
        account = await self._ledger.account(key)
        if account is None:
            raise AccountUnknownError
        started = time.perf_counter()
        identity = workflow.policy.identity
        start = await self._ground(workflow, account)
        fold = await self._recall.fresh(workflow, key, start=start)
        stored = await self._memories.get(key, identity, keep_alive=False)
        complete = fold.complete and (account.kept_above == 0 or start is not None)
        was_equal = None
        if stored is not None and stored.head == fold.memory.head:
            was_equal = same(workflow, stored.memory, fold.memory.memory)
        if complete or was_equal is None:  # what knows more than the ledger still does is kept
            await self._recall.renew(workflow, key, fold.memory)
        return Rebuilt(
            key,
            identity.policy,
            fold.memory.head,
            fold.interactions,
            digest_of(workflow, fold.memory.memory),
            was_equal,
            complete,
            time.perf_counter() - started,
        )

    async def page(
        self, workflow: Workflow, tenant: str, limit: int, after: str | None
    ) -> RebuiltPage:
        """Rebuilds the tenant's next `limit` accounts above `after`. Raises what `account` does."""
        started = time.perf_counter()
        page = await self._ledger.read(read_accounts(Scope(tenant, workflow.name), after, limit))
        rebuilt = []
        for account in page:
            try:
                rebuilt.append(await self.account(workflow, account.key))
            except AccountUnknownError:  # erased since it was listed
                continue
        return RebuiltPage(
            len(rebuilt),
            sum(one.interactions for one in rebuilt),
            sum(one.was_equal is False for one in rebuilt),
            time.perf_counter() - started,
            joint_digest(account_digest(one.key, one.head, one.digest) for one in rebuilt),
            page[-1].key.account_id if len(page) == limit else None,
        )

    async def _ground(self, workflow: Workflow, account: Account) -> StoredMemory | None:
        """What the replay starts from; None: from nothing."""
        digest = workflow.policy.identity.digest.hex()
        kept = await self._ledger.read(read_snapshots(account.key, digest))
        return ground(workflow, account, kept)


def ground(workflow: Workflow, account: Account, kept: Iterable[Snapshot]) -> StoredMemory | None:
    """What a replay starts from where early events are deleted: the oldest memory `kept` that is
    whole; None: from nothing, for nothing is deleted, or nothing was kept."""
    if account.kept_above == 0:
        return None
    for snapshot in kept:
        if snapshot.head.position >= account.kept_above:
            try:
                memory = decode(
                    snapshot.memory, workflow.policy.identity, account_name(snapshot.key)
                ).memory
            except CorruptMemoryError:
                continue
            return StoredMemory(memory, Head(account.head.generation, snapshot.head.position))
    return None


def same(workflow: Workflow, one: Memory, other: Memory) -> bool:
    """Whether two memories are equal bit for bit; rows that an action has since got are blank."""
    rows = max(one.rows.shape[1], other.rows.shape[1])
    return all(
        found.tobytes() == wanted.tobytes()
        for found, wanted in zip(
            workflow.with_rows(one, rows), workflow.with_rows(other, rows), strict=True
        )
    )


def digest_of(workflow: Workflow, memory: Memory) -> str:
    """SHA-256 over the memory's float32 bytes, with a row for every action; hex."""
    whole = workflow.with_rows(memory, len(workflow.spec.actions))
    bits = b"".join(np.ascontiguousarray(part, "<f4").tobytes() for part in whole)
    return hashlib.sha256(bits).hexdigest()


def account_digest(key: AccountKey, head: Head, memory_digest: str) -> str:
    """SHA-256 over whose memory it is, its head and its digest; hex."""
    text = "|".join([*key, str(head.generation), str(head.position), memory_digest])
    return hashlib.sha256(text.encode()).hexdigest()


def joint_digest(digests: Iterable[str]) -> str:
    """The digest of a set of accounts: the sum of theirs, so that pages add up to the whole
    however it is cut; hex."""
    return f"{sum(int(one, 16) for one in digests) % 2**256:064x}"
