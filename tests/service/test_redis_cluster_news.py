"""Whom a client of a cluster believes: servers here say what a test has them say, old news too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from service.memory.redis_cluster import LOOK_AGAIN_SECONDS, RedisCluster
from service.memory.redis_server import Command

ALL = 16_383
GET = Command("key", ("GET", "key"))


@dataclass
class Told:
    """A server that answers PING, CLUSTER SLOTS and GET as it is told to."""

    owner: Told | None = None
    """Whom it names for all slots; itself: it has the keys."""
    port: int = 0
    asked: int = 0
    """How often it was asked who has what."""
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def up(self) -> Told:
        """Answers from now on, at the port that it had."""
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def down(self) -> None:
        """Refuses connections, and ends those that there are."""
        if self._server is not None:
            self._server.close()
            for writer in self._open:
                writer.close()
            self._server = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while line := await reader.readline():
                words = []
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2].upper())
                writer.write(self._answer(words))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    def _answer(self, words: list[bytes]) -> bytes:
        assert self.owner is not None
        if words == [b"CLUSTER", b"SLOTS"]:
            self.asked += 1
            named = f"*2\r\n$9\r\n127.0.0.1\r\n:{self.owner.port}\r\n"
            return f"*1\r\n*3\r\n:0\r\n:{ALL}\r\n{named}".encode()
        if words[0] == b"GET":
            if self.owner is self:
                return b"$2\r\nhi\r\n"
            return f"-MOVED 12539 127.0.0.1:{self.owner.port}\r\n".encode()
        return b"+PONG\r\n" if words[0] == b"PING" else b"+OK\r\n"


Start = Callable[[], Awaitable[Told]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    servers: list[Told] = []

    async def one() -> Told:
        servers.append(await Told().up())
        return servers[-1]

    yield one
    for server in servers:
        await server.down()


async def get(cluster: RedisCluster) -> object:
    (reply,) = await cluster.send([GET], asyncio.get_running_loop().time() + 0.5)
    return reply


async def eventually(cluster: RedisCluster, seconds: float = 5) -> bool:
    """Whether the key is read within this time."""
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        if await get(cluster) == b"hi":
            return True
        await asyncio.sleep(0.02)
    return False


async def test_a_takeover_is_believed_whoever_has_not_heard_of_it(start: Start) -> None:
    lost, heir, late = await start(), await start(), await start()
    for server in (lost, heir, late):
        server.owner = lost
    cluster = RedisCluster([late.url, heir.url], 0.25)
    try:
        assert await eventually(cluster)
        await lost.down()
        assert await get(cluster) != b"hi"
        heir.owner = heir  # and `late` goes on naming the lost one
        assert await eventually(cluster)
        for _ in range(10):
            cluster._look()
            await asyncio.sleep(LOOK_AGAIN_SECONDS / 2)
            assert await get(cluster) == b"hi"
    finally:
        await cluster.close()


async def test_who_comes_back_is_found_beside_one_with_old_news(start: Start) -> None:
    owner, good, old = await start(), await start(), await start()
    owner.owner = good.owner = owner
    old.owner = good  # as it was long ago
    cluster = RedisCluster([good.url, old.url], 0.25)
    try:
        assert await eventually(cluster)
        await owner.down()
        assert await get(cluster) != b"hi"
        await asyncio.sleep(3 * LOOK_AGAIN_SECONDS)
        await owner.up()
        assert await eventually(cluster)
    finally:
        await cluster.close()
