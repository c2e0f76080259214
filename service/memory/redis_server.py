"""One Redis server: a batch of commands and its replies, one round trip on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from redis.asyncio import BlockingConnectionPool
from redis.exceptions import ConnectionError, RedisError, ResponseError

MOST_CONNECTIONS = 32


class Command(NamedTuple):
    """One command about one key."""

    key: str
    words: tuple[str | bytes | int, ...]
    """All of it, as it is sent."""


FAILURES = (RedisError, OSError, TimeoutError)
"""What a command may meet instead of a reply."""


class Connected(Protocol):
    """A server or a cluster of them, to the memory store."""

    async def send(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """A reply a command, or the exception, one of FAILURES, that it met. Returns by `deadline`,
        in the event loop's time, and never raises one of them."""

    async def runs(self, deadline: float) -> dict[str, str | None]:
        """The run id, drawn at every start, of each server that has keys; None: no answer."""

    async def close(self) -> None:
        """Lets go of the connections."""


class RedisServer:
    """Connections to one server."""

    def __init__(self, url: str, connect_seconds: float) -> None:
        self.url = url
        # Deadlines are the batch's: a timer for every reply would cost more than the reply.
        self._pool: Any = BlockingConnectionPool.from_url(
            url,
            max_connections=MOST_CONNECTIONS,
            timeout=None,
            socket_timeout=None,
            socket_connect_timeout=connect_seconds,
        )

    async def send(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """See Connected."""
        replies: list[Any] = []
        try:
            async with asyncio.timeout_at(deadline):
                try:
                    await self._exchange(commands, replies)
                except ConnectionError:  # it ended since it was last used; every command bears it
                    await self._exchange(commands[len(replies) :], replies)
        except FAILURES as error:
            replies += [error] * (len(commands) - len(replies))
        return replies

    async def runs(self, deadline: float) -> dict[str, str | None]:
        """See Connected."""
        (found,) = await self.send([Command("", ("INFO", "server"))], deadline)
        if not isinstance(found, bytes):
            return {self.url: None}
        lines = found.decode().splitlines()
        return {self.url: next((line for line in lines if line.startswith("run_id:")), "")}

    async def close(self) -> None:
        """See Connected."""
        await self._pool.aclose()

    async def _exchange(self, commands: Sequence[Command], replies: list[Any]) -> None:
        connection = await self._pool.get_connection()
        try:
            packed = connection.pack_commands(command.words for command in commands)
            await connection.send_packed_command(packed, check_health=False)
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:  # this command's alone
                    replies.append(error)
        except BaseException:
            # Replies may be on their way that nobody waits for: they must answer nothing else.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)
