"""Verify: is every memory, and every account, what the ledger's events come to?

Nothing is written, whatever is found. A service that goes on meanwhile is no difference: what has
moved while it was looked at is looked at again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from contract.adaptation import AccountAdaptation
from service.catalog import Catalog, Workflow
from service.ledger.ledger import Ledger
from service.ledger.past import PAGE
from service.ledger.records import Account, AccountKey, Head, Snapshot
from service.ledger.recount import History, HistoryError, recount
from service.ledger.scan import Scope, State, read_accounts, read_folded, read_state
from service.memory.codec import CorruptMemoryError, account_name, decode
from service.memory.store import MemoryStore, StoredMemory
from service.recall import Recall, UnreadablePastError
from service.replay import account_digest, digest_of, ground, joint_digest, same

LOOKS = 5
"""How often an account that moves is looked at before what was seen counts."""
PAUSE_SECONDS = 0.1
"""Between two looks: long enough for a commit's fold to be stored."""


@dataclass(frozen=True)
class Difference:
    """Something that is not what the events come to."""

    key: AccountKey
    what: str
    detail: str


@dataclass
class Verification:
    """What was checked, and what was found."""

    accounts: int = 0
    interactions: int = 0
    memories: int = 0
    snapshots: int = 0
    incomplete: int = 0
    """Accounts whose early events retention has deleted: no adaptation to count again."""
    differing: list[Difference] = field(default_factory=list)
    digest: str = joint_digest([])
    next: str | None = None
    """Where the next page begins, above this account."""

    def add(self, other: Verification) -> None:
        """Counts another page's in."""
        self.accounts += other.accounts
        self.interactions += other.interactions
        self.memories += other.memories
        self.snapshots += other.snapshots
        self.incomplete += other.incomplete
        self.differing += other.differing
        self.digest = joint_digest([self.digest, other.digest])
        self.next = other.next


@dataclass
class _Look:
    """One account, looked at once."""

    account: Account
    found: Verification
    behind: bool = False
    """Whether its memory was not at the head that it had just before."""

    def differs(self, what: str, detail: str) -> None:
        self.found.differing.append(Difference(self.account.key, what, detail))


class Verifier:
    """Compares memories and accounts with the ledger's events."""

    def __init__(
        self, ledger: Ledger, memories: MemoryStore, recall: Recall, catalog: Catalog
    ) -> None:
        self._ledger = ledger
        self._memories = memories
        self._recall = recall
        self._catalog = catalog

    async def page(
        self, workflow: Workflow, tenant: str, limit: int, after: str | None
    ) -> Verification:
        """The tenant's next `limit` accounts above `after`. Raises LedgerUnavailableError and
        MemoryUnavailableError."""
        scope = Scope(tenant, workflow.name)
        listed = await self._ledger.read(read_accounts(scope, after, limit))
        whole = Verification()
        for account in listed:
            whole.add(await self.account(workflow, account.key))
        whole.next = listed[-1].key.account_id if len(listed) == limit else None
        return whole

    async def account(self, workflow: Workflow, key: AccountKey) -> Verification:
        """One account. Raises LedgerUnavailableError and MemoryUnavailableError."""
        looks = 1
        while (look := await self._look(workflow, key)) is not None:
            if not look.found.differing or looks == LOOKS or not await self._may_have_moved(look):
                return look.found
            looks += 1
            await asyncio.sleep(PAUSE_SECONDS)
        return Verification()  # erased since it was listed

    async def _look(self, workflow: Workflow, key: AccountKey) -> _Look | None:
        identity = workflow.policy.identity
        stored = await self._memories.get(key, identity, keep_alive=False)
        state = await self._ledger.read(read_state(key, identity.digest.hex()))
        if state is None:
            return None
        look = _Look(state.account, Verification(accounts=1))
        look.found.incomplete = int(state.account.kept_above > 0)
        look.found.memories = int(stored is not None)
        look.found.snapshots = len(state.snapshots)
        await self._recount(look, state)
        try:
            memory = await self._replay(workflow, look, state.snapshots)
        except UnreadablePastError as error:
            look.differs("past", str(error))
            return look
        digest = digest_of(workflow, memory.memory)
        look.found.digest = account_digest(key, memory.head, digest)
        grounded = look.account.kept_above == 0 or ground(workflow, look.account, state.snapshots)
        if stored is not None:
            _compare(workflow, look, stored, memory, known=grounded is not None)
        return look

    async def _may_have_moved(self, look: _Look) -> bool:
        now = await self._ledger.account(look.account.key)
        return look.behind or now is None or now.head != look.account.head

    async def _recount(self, look: _Look, state: State) -> None:
        """Head and adaptation against the events."""
        account = state.account
        if state.last_position > account.head.position:
            look.differs(
                "head",
                f"at {_shown(account.head)}, but there is an interaction at position "
                f"{state.last_position}",
            )
        newest = max((one.generation for one in state.generations), default=0)
        if newest > account.head.generation:
            look.differs("head", f"at {_shown(account.head)}, below generation {newest}")
        if account.kept_above > 0:
            return
        key, base, head = account.key, account.base_generation, account.head
        history, after = History(), None
        while rows := await self._ledger.read(read_folded(key, base, head, after, PAGE)):
            history.add(rows)
            after = rows[-1].head
        opened = [one for one in state.generations if one.generation <= head.generation]
        try:
            counted, adaptation = await asyncio.to_thread(
                recount,
                account,
                opened,
                history.in_order(),
                lambda version: self._catalog.spec(key.workflow, version),
            )
        except HistoryError as error:
            look.differs(error.what, str(error))
            return
        if counted != head:
            look.differs("head", f"at {_shown(head)}, its events come to {_shown(counted)}")
        elif adaptation != account.adaptation:
            look.differs(
                "adaptation",
                f"{_phrase(account.adaptation)}, its events come to {_phrase(adaptation)}",
            )

    async def _replay(
        self, workflow: Workflow, look: _Look, kept: Sequence[Snapshot]
    ) -> StoredMemory:
        """The memory at the account's head, folded afresh; on the way it passes those kept."""
        account = look.account
        generation = account.head.generation
        memory = ground(workflow, account, kept)
        for snapshot in kept:
            position = snapshot.head.position
            if not _belongs(snapshot, account):
                look.differs("snapshot", f"kept at {_shown(snapshot.head)}, which is no such place")
                continue
            if memory is not None and position < memory.head.position:
                continue  # what it was folded from is deleted
            if memory is None or position > memory.head.position:
                memory = await self._advance(workflow, look, memory, Head(generation, position))
            try:
                found = decode(
                    snapshot.memory, workflow.policy.identity, account_name(snapshot.key)
                )
            except CorruptMemoryError as error:
                look.differs("snapshot", f"kept at position {position} is not whole: {error}")
                continue
            if not same(workflow, found.memory, memory.memory):
                look.differs(
                    "snapshot", f"kept at position {position} is not the replay up to there"
                )
        return await self._advance(workflow, look, memory, account.head)

    async def _advance(
        self, workflow: Workflow, look: _Look, memory: StoredMemory | None, head: Head
    ) -> StoredMemory:
        fold = await self._recall.fresh(workflow, look.account.key, head, start=memory)
        look.found.interactions += fold.interactions
        if not fold.complete and look.account.kept_above == 0:
            look.differs("positions", f"interactions up to {_shown(head)} are missing")
        return fold.memory


def _compare(
    workflow: Workflow, look: _Look, stored: StoredMemory, memory: StoredMemory, *, known: bool
) -> None:
    """`known`: whether the ledger still has, or has kept, all that the stored memory holds."""
    if stored.head != memory.head:
        look.behind = True
        where = "behind" if stored.head < memory.head else "ahead of"
        look.differs(
            "memory", f"stored at {_shown(stored.head)}, {where} the head {_shown(memory.head)}"
        )
    elif known and not same(workflow, stored.memory, memory.memory):
        look.differs(
            "memory",
            f"stored at {_shown(stored.head)} is not the replay of {memory.head.position} "
            "interactions",
        )


def _belongs(snapshot: Snapshot, account: Account) -> bool:
    """Whether the account's past has such a place."""
    generation, position = snapshot.head
    in_time = account.base_generation <= generation <= account.head.generation
    return in_time and 0 < position <= account.head.position


def _shown(head: Head) -> str:
    """generation:position."""
    return f"{head.generation}:{head.position}"


def _phrase(adaptation: AccountAdaptation) -> str:
    first = adaptation.adapted_at or "never"
    recent = list(adaptation.recent)
    return f"{adaptation.phase}, first adapted at {first}, last rewards {recent[-3:]}"
