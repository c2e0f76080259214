"""Memories in this process: the embedded profile. The least recently used are let go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from service.ledger.records import AccountKey, Head
from service.memory.store import MemoryUnavailableError, PolicyIdentity, StoredMemory


class InProcessMemoryStore:
    """A MemoryStore over a dictionary of at most `capacity` memories."""

    remote = False

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._memories: OrderedDict[tuple[AccountKey, PolicyIdentity], StoredMemory] = OrderedDict()

    async def get(
        self, key: AccountKey, policy: PolicyIdentity, *, keep_alive: bool = True
    ) -> StoredMemory | None:
        """See MemoryStore."""
        return self._get(key, policy) if keep_alive else self._memories.get((key, policy))

    async def get_many(
        self, wanted: Sequence[tuple[AccountKey, PolicyIdentity]], *, keep_alive: bool = True
    ) -> list[StoredMemory | None]:
        """See MemoryStore."""
        if keep_alive:
            return [self._get(key, policy) for key, policy in wanted]
        return [self._memories.get(one) for one in wanted]

    def _get(self, key: AccountKey, policy: PolicyIdentity) -> StoredMemory | None:
        stored = self._memories.get((key, policy))
        if stored is not None:
            self._memories.move_to_end((key, policy))
        return stored

    async def swap(
        self, key: AccountKey, policy: PolicyIdentity, expected: Head | None, new: StoredMemory
    ) -> bool:
        """See MemoryStore."""
        stored = self._memories.get((key, policy))
        if (stored.head if stored else None) != expected:
            return False
        await self.put(key, policy, new)
        return True

    async def swap_many(
        self, swaps: Sequence[tuple[AccountKey, PolicyIdentity, Head | None, StoredMemory]]
    ) -> list[bool | MemoryUnavailableError]:
        """See MemoryStore."""
        return [await self.swap(*one) for one in swaps]

    async def put(self, key: AccountKey, policy: PolicyIdentity, new: StoredMemory) -> None:
        """See MemoryStore."""
        self._memories[key, policy] = new
        self._memories.move_to_end((key, policy))
        while len(self._memories) > self._capacity:
            self._memories.popitem(last=False)

    async def incarnation(self) -> str:
        """See MemoryStore. It lives as long as its process."""
        return ""

    async def delete(self, key: AccountKey, policy: PolicyIdentity) -> None:
        """See MemoryStore."""
        self._memories.pop((key, policy), None)

    async def ping(self) -> None:
        """See MemoryStore."""

    async def close(self) -> None:
        """See MemoryStore."""
        self._memories.clear()
