"""What a memory store is: get, compare-and-set, put, delete. It never computes a memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from contract.policy import Memory
from service.ledger.records import AccountKey, Head


@dataclass(frozen=True)
class StoredMemory:
    """The memory of one account under one policy version, with how much of the past it holds."""

    memory: Memory
    """Batch 1: `shared` [1, G], `rows` [1, K, H]. Never written to."""
    head: Head


class MemoryUnavailableError(Exception):
    """The store did not answer in time, or not at all."""


class MemoryStore(Protocol):
    """Keeps memories by (account, policy). Every operation may raise MemoryUnavailableError."""

    remote: bool
    """Whether reading takes a round trip, so that it pays to begin before it is needed."""

    async def get(
        self, key: AccountKey, policy: PolicyIdentity, *, keep_alive: bool = True
    ) -> StoredMemory | None:
        """The memory, or None when there is none that this policy may use. `keep_alive` counts as
        use, where a store lets go of what was not used for the longest."""

    async def get_many(
        self, wanted: Sequence[tuple[AccountKey, PolicyIdentity]], *, keep_alive: bool = True
    ) -> Sequence[StoredMemory | MemoryUnavailableError | None]:
        """`get` for several, in one round trip; what one of them would raise is in its place."""

    async def swap(
        self, key: AccountKey, policy: PolicyIdentity, expected: Head | None, new: StoredMemory
    ) -> bool:
        """Stores `new` if the memory stored now is at `expected` (None: there is none)."""

    async def swap_many(
        self, swaps: Sequence[tuple[AccountKey, PolicyIdentity, Head | None, StoredMemory]]
    ) -> Sequence[bool | MemoryUnavailableError]:
        """`swap` for several, in one round trip; an error where that could not be done."""

    async def put(self, key: AccountKey, policy: PolicyIdentity, new: StoredMemory) -> None:
        """Stores `new` over whatever is there."""

    async def incarnation(self) -> str:
        """Another one whenever what is stored may have gone back in time, as after a restart."""

    async def delete(self, key: AccountKey, policy: PolicyIdentity) -> None:
        """Lets go of the memory, if there is one."""

    async def ping(self) -> None:
        """Returns when all of the store answers."""

    async def close(self) -> None:
        """Lets go of the store."""


@dataclass(frozen=True)
class PolicyIdentity:
    """What must be equal for a stored memory to be this policy's own."""

    policy: str
    """Name and version, `bandits/1`."""
    digest: bytes
    """32 bytes over the policy, its graph, onnxruntime's version and the kernel fingerprint."""
    shared_size: int
    row_size: int
