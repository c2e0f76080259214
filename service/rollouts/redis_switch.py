"""The kill switch in Redis, where all replicas see it."""

from __future__ import annotations

import asyncio
import json

from service.memory.redis_address import parse_address
from service.memory.redis_cluster import RedisCluster
from service.memory.redis_server import Command, Connected, RedisServer
from service.rollouts.kill_switch import TIMEOUT_SECONDS, Switches, of_json, to_json


class RedisSwitch:
    """A SharedPlace: one key, of this ledger's switches."""

    def __init__(self, url: str, ledger_id: str) -> None:
        """Raises ValueError when the address cannot be read."""
        address = parse_address(url)
        self._redis: Connected = (
            RedisCluster(address.servers, TIMEOUT_SECONDS)
            if address.cluster
            else RedisServer(address.servers[0], TIMEOUT_SECONDS)
        )
        self._key = f"acclimate:{ledger_id[:16]}:kill-switch"

    async def read(self) -> Switches:
        """See SharedPlace. What is not ours to read counts as nothing, and is written over."""
        found = await self._send("GET", self._key)
        try:
            return {} if found is None else of_json(json.loads(found))
        except (TypeError, ValueError):
            return {}

    async def write(self, switches: Switches) -> None:
        """See SharedPlace."""
        await self._send("SET", self._key, json.dumps(to_json(switches)))

    async def close(self) -> None:
        """See SharedPlace."""
        await self._redis.close()

    async def _send(self, *words: str) -> bytes | None:
        deadline = asyncio.get_running_loop().time() + TIMEOUT_SECONDS
        (reply,) = await self._redis.send([Command(self._key, words)], deadline)
        if isinstance(reply, Exception):
            raise OSError("Redis does not answer") from reply
        found: bytes | None = reply
        return found
