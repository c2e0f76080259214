"""Memories in Redis, shared by all replicas. Flushed or old, the ledger makes them whole again.

One key a memory, hash-tagged by account, so that an account's memories share a cluster slot. The
key also names the ledger that the memory is the fold of and the policy's digest: what another
ledger, graph or kind of CPU made is never found. What is asked for at once shares a round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from service.batching import BacklogFullError, Batcher
from service.ledger.records import AccountKey, Head
from service.memory.codec import HEAD_BYTES, CorruptMemoryError, decode, encode, encode_head
from service.memory.redis_address import parse_address
from service.memory.redis_breaker import Breaking
from service.memory.redis_cluster import RedisCluster
from service.memory.redis_server import FAILURES, Command, Connected, RedisServer
from service.memory.store import MemoryUnavailableError, PolicyIdentity, StoredMemory

LARGEST_BATCH = 256
"""Commands that share a round trip at most."""

# KEYS[1] memory; ARGV: expected generation and position ('' for no memory), new bytes, seconds.
# Sent whole each time: as cheap as its digest, and a server that took over may not know that.
SWAP = f"""
local stored = redis.call('GETRANGE', KEYS[1], {HEAD_BYTES.start}, {HEAD_BYTES.stop - 1})
if stored ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""


class RedisMemoryStore:
    """A MemoryStore on one Redis server or a Redis Cluster."""

    remote = True

    def __init__(
        self,
        url: str,
        ledger_id: str,
        timeout_seconds: float,
        idle_seconds: int,
        on_corrupt: Callable[[str], None] = lambda _: None,
        on_circuit: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`on_corrupt` is told why when stored bytes turn out not to be this account's memory
        under this policy, `on_circuit` whether the circuit to the server is open, whenever that
        changes. Raises ValueError when the address cannot be read."""
        address = parse_address(url)
        self._redis: Connected = (
            RedisCluster(address.servers, timeout_seconds)
            if address.cluster
            else Breaking(RedisServer(address.servers[0], timeout_seconds), on_circuit)
        )
        self._ledger = ledger_id[:16]
        self._timeout = timeout_seconds
        self._idle = idle_seconds
        self._on_corrupt = on_corrupt
        self._batches: Batcher[Command, Any] = Batcher(self._send, LARGEST_BATCH)

    async def get(
        self, key: AccountKey, policy: PolicyIdentity, *, keep_alive: bool = True
    ) -> StoredMemory | None:
        """See MemoryStore. Reading is not use: what learns is kept, what rests is let go, and
        replayed when it is asked for again."""
        name = self._name(key, policy)
        try:
            data = await self._ask(Command(name, ("GET", name)))
        except ResponseError as error:
            data = error
        found = self._decode(data, name, policy)
        if isinstance(found, MemoryUnavailableError):
            raise found
        return found

    async def get_many(
        self, wanted: Sequence[tuple[AccountKey, PolicyIdentity]], *, keep_alive: bool = True
    ) -> list[StoredMemory | MemoryUnavailableError | None]:
        """See MemoryStore. Corrupt bytes are reported and read as no memory."""
        if not wanted:
            return []
        names = [self._name(key, policy) for key, policy in wanted]
        found = await self._send([Command(name, ("GET", name)) for name in names])
        return [
            self._decode(data, name, policy)
            for data, name, (_, policy) in zip(found, names, wanted, strict=True)
        ]

    async def swap(
        self, key: AccountKey, policy: PolicyIdentity, expected: Head | None, new: StoredMemory
    ) -> bool:
        """See MemoryStore."""
        return bool(await self._write(self._swap(key, policy, expected, new)))

    async def swap_many(
        self, swaps: Sequence[tuple[AccountKey, PolicyIdentity, Head | None, StoredMemory]]
    ) -> list[bool | MemoryUnavailableError]:
        """See MemoryStore."""
        replies = await self._send([self._swap(*one) for one in swaps])
        return [_unavailable(one) if isinstance(one, Exception) else bool(one) for one in replies]

    def _swap(
        self, key: AccountKey, policy: PolicyIdentity, expected: Head | None, new: StoredMemory
    ) -> Command:
        name = self._name(key, policy)
        was = b"" if expected is None else encode_head(expected)
        arguments = (was, encode(new, policy, name), self._idle)
        return Command(name, ("EVAL", SWAP, 1, name, *arguments))

    async def put(self, key: AccountKey, policy: PolicyIdentity, new: StoredMemory) -> None:
        """See MemoryStore."""
        name = self._name(key, policy)
        data = encode(new, policy, name)
        await self._write(Command(name, ("SET", name, data, "EX", self._idle)))

    async def incarnation(self) -> str:
        """See MemoryStore. A server of a cluster that is lost is one more state of it."""
        runs = await self._redis.runs(self._deadline())
        if not any(runs.values()):
            raise MemoryUnavailableError("Redis: no answer")
        return "|".join(str(runs[server]) for server in sorted(runs))

    async def delete(self, key: AccountKey, policy: PolicyIdentity) -> None:
        """See MemoryStore."""
        name = self._name(key, policy)
        await self._write(Command(name, ("DEL", name)))

    async def ping(self) -> None:
        """See MemoryStore."""
        if None in (await self._redis.runs(self._deadline())).values():
            raise MemoryUnavailableError("Redis: no answer")

    async def close(self) -> None:
        """See MemoryStore."""
        await self._redis.close()

    def _decode(
        self, data: bytes | Exception | None, name: str, policy: PolicyIdentity
    ) -> StoredMemory | MemoryUnavailableError | None:
        if data is None:
            return None
        if isinstance(data, Exception):
            if not str(data).startswith("WRONGTYPE"):
                return _unavailable(data)
            self._on_corrupt("type")
            return None
        try:
            return decode(data, policy, name)
        except CorruptMemoryError as error:
            self._on_corrupt(str(error))
            return None

    async def _write(self, command: Command) -> Any:
        try:
            return await self._ask(command)
        except ResponseError as error:
            raise _unavailable(error) from error

    async def _ask(self, command: Command) -> Any:
        """The reply, in one round trip with whatever else is asked now. Raises ResponseError and
        MemoryUnavailableError."""
        try:
            return await asyncio.wait_for(self._batches.ask(command), self._timeout)
        except ResponseError:
            raise
        except (*FAILURES, BacklogFullError) as error:
            raise _unavailable(error) from error

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        return await self._redis.send(commands, self._deadline())

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout

    def _name(self, key: AccountKey, policy: PolicyIdentity) -> str:
        account = f"{key.tenant}|{key.workflow}|{key.account_id}"
        version = f"{policy.policy}:{policy.digest[:8].hex()}"
        return f"acclimate:{self._ledger}:{{{account}}}:memory:{version}"


def _unavailable(error: Exception) -> MemoryUnavailableError:
    return MemoryUnavailableError(f"Redis: {error or 'no answer in time'}")
