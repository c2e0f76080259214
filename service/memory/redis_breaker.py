"""One Redis server behind a circuit breaker: while it does not answer, who asks is told at once.

A cluster needs none: it lets go of a lost server by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from guardrails.breaker import Breaker, Fuse, ask, failed
from service.memory.redis_server import Command, Connected

FUSE = Fuse(failures=3, rest_us=100_000)
"""Failures are answers that did not come in time: an error that comes at once costs nobody time."""


class OpenCircuitError(RedisError):
    """The server did not answer several times in a row, and is not asked for a moment."""


class Breaking:
    """A Connected that another one is behind."""

    def __init__(self, behind: Connected, on_change: Callable[[bool], None]) -> None:
        """`on_change` is told whether the circuit is open, whenever that changes."""
        self._behind = behind
        self._on_change = on_change
        self._breaker = Breaker()

    async def send(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """See Connected."""
        may, breaker = ask(self._breaker, FUSE, _now_us())
        self._becomes(breaker)
        if not may:
            return [OpenCircuitError("no answer lately")] * len(commands)
        replies = await self._behind.send(commands, deadline)
        if any(isinstance(one, TimeoutError) for one in replies):
            self._becomes(failed(self._breaker, FUSE, _now_us()))
        else:
            self._becomes(Breaker())
        return replies

    async def runs(self, deadline: float) -> dict[str, str | None]:
        """See Connected; asked whether the circuit is open or not, and an answer closes it."""
        found = await self._behind.runs(deadline)
        if None not in found.values():
            self._becomes(Breaker())
        return found

    async def close(self) -> None:
        """See Connected."""
        await self._behind.close()

    def _becomes(self, breaker: Breaker) -> None:
        was, self._breaker = self._breaker, breaker
        if (was.until_us is None) is not (breaker.until_us is None):
            self._on_change(breaker.until_us is not None)


def _now_us() -> int:
    return time.monotonic_ns() // 1_000
