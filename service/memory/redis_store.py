"""Memories in Redis, shared by all replicas. Flushed or old, the ledger makes them whole again.

One key a memory, hash-tagged by account, so that an account's memories share a cluster slot. The
key also names the ledger that the memory is the fold of and the policy's digest: what another
ledger, graph or kind of CPU made is never found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from service.ledger.records import AccountKey, Head
from service.memory.codec import HEAD_BYTES, CorruptMemoryError, decode, encode, encode_head
from service.memory.store import MemoryUnavailableError, PolicyIdentity, StoredMemory

R = TypeVar("R")

MOST_CONNECTIONS = 32

# KEYS[1] memory; ARGV: expected generation and position ('' for no memory), new bytes, seconds.
SWAP = f"""
local stored = redis.call('GETRANGE', KEYS[1], {HEAD_BYTES.start}, {HEAD_BYTES.stop - 1})
if stored ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""


class RedisMemoryStore:
    """A MemoryStore on one Redis server."""

    def __init__(
        self,
        url: str,
        ledger_id: str,
        timeout_seconds: float,
        idle_seconds: int,
        on_corrupt: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`on_corrupt` is told why when stored bytes turn out not to be this policy's memory."""
        self._redis: Any = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url,
                max_connections=MOST_CONNECTIONS,
                timeout=timeout_seconds,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
            )
        )
        self._ledger = ledger_id[:16]
        self._timeout = timeout_seconds
        self._idle = idle_seconds
        self._on_corrupt = on_corrupt
        self._swap = self._redis.register_script(SWAP)

    async def get(
        self, key: AccountKey, policy: PolicyIdentity, *, keep_alive: bool = True
    ) -> StoredMemory | None:
        """See MemoryStore."""
        if keep_alive:
            (stored,) = await self.get_many([(key, policy)])
            return stored
        return self._decode(await self._ask(self._redis.get(self._name(key, policy))), policy)

    async def get_many(
        self, wanted: Sequence[tuple[AccountKey, PolicyIdentity]]
    ) -> list[StoredMemory | None]:
        """See MemoryStore. Corrupt bytes are reported and read as no memory."""
        pipeline = self._redis.pipeline(transaction=False)
        for key, policy in wanted:
            pipeline.getex(self._name(key, policy), ex=self._idle)
        found = await self._ask(pipeline.execute(raise_on_error=False))
        return [self._decode(data, policy) for data, (_, policy) in zip(found, wanted, strict=True)]

    async def swap(
        self, key: AccountKey, policy: PolicyIdentity, expected: Head | None, new: StoredMemory
    ) -> bool:
        """See MemoryStore."""
        was = b"" if expected is None else encode_head(expected)
        arguments: list[bytes | int] = [was, encode(new, policy), self._idle]
        return bool(await self._ask(self._swap(keys=[self._name(key, policy)], args=arguments)))

    async def put(self, key: AccountKey, policy: PolicyIdentity, new: StoredMemory) -> None:
        """See MemoryStore."""
        await self._ask(
            self._redis.set(self._name(key, policy), encode(new, policy), ex=self._idle)
        )

    async def delete(self, key: AccountKey, policy: PolicyIdentity) -> None:
        """See MemoryStore."""
        await self._ask(self._redis.delete(self._name(key, policy)))

    async def ping(self) -> None:
        """See MemoryStore."""
        await self._ask(self._redis.ping())

    async def close(self) -> None:
        """See MemoryStore."""
        await self._redis.aclose()

    def _decode(
        self, data: bytes | Exception | None, policy: PolicyIdentity
    ) -> StoredMemory | None:
        if data is None:
            return None
        if isinstance(data, Exception):  # one key that holds something else is no one else's loss
            self._on_corrupt("type")
            return None
        try:
            return decode(data, policy)
        except CorruptMemoryError as error:
            self._on_corrupt(str(error))
            return None

    async def _ask(self, answer: Awaitable[R]) -> R:
        try:
            return await asyncio.wait_for(answer, self._timeout)
        except (RedisError, OSError, TimeoutError) as error:
            raise MemoryUnavailableError(f"Redis: {error or 'no answer in time'}") from error

    def _name(self, key: AccountKey, policy: PolicyIdentity) -> str:
        account = f"{key.tenant}|{key.workflow}|{key.account_id}"
        version = f"{policy.policy}:{policy.digest[:8].hex()}"
        return f"acclimate:{self._ledger}:{{{account}}}:memory:{version}"
