"""A closed loop over raw sockets: every connection sends its next request when it has its answer.

Requests come as whole bytes and answers are read no further than their length, so that the client
is not what is measured: `serving` reports what it does against a server that does nothing.
"""

from __future__ import annotations

import asyncio
import gc
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np

HOST = "127.0.0.1"
PATIENCE_SECONDS = 60.0
"""How long a window may go on after its end, waiting for answers."""

KEY = "the key of the serving benchmark, nobody else's"
AUTHORIZATION = f"Bearer {KEY}"
"""What every request carries; the echo does not look."""

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_OK = b"HTTP/1.1 200 "

NextRequest = Callable[[], bytes | None]
"""The next request, whole, from the request line on; None when there are no more."""
Check = Callable[[bytes], str | None]
"""What is wrong with a 200's head and body; None: nothing."""


class LoadError(RuntimeError):
    """A request was not answered as it should be. The message shows the answer."""


@dataclass
class Window:
    """What was measured: the latency of every answer, and how long they took together."""

    latencies_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rps(self) -> float:
        """Answers a second."""
        return len(self.latencies_ms) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """The latency that so many percent of the answers did not exceed."""
        return float(np.percentile(self.latencies_ms, percent, method="inverted_cdf"))


def encode_request(path: bytes, body: bytes) -> bytes:
    """A POST of JSON, as it goes over the wire."""
    return (
        b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"authorization: %b\r\ncontent-length: %d\r\n\r\n%b"
        % (path, AUTHORIZATION.encode(), len(body), body)
    )


async def closed_loop(
    port: int,
    next_request: NextRequest,
    *,
    connections: int,
    seconds: float = math.inf,
    warm_up_seconds: float = 0.0,
    check: Check | None = None,
) -> Window:
    """Sends for `seconds` after the warm-up, or until there are no more requests.

    Every answer to a request sent in that time counts, and the window ends with the last of them.
    Raises LoadError, also for a single answer that is not a 200.
    """
    loop = asyncio.get_running_loop()
    run = _Run(next_request, check, loop.create_future(), connections)
    transports = []
    try:
        for _ in range(connections):
            transport, _ = await loop.create_connection(lambda: _Connection(run), HOST, port)
            transports.append(transport)
        gc.collect()
        gc.disable()  # its pauses would be read as the server's
        run.start(warm_up_seconds, seconds)
        for transport in transports:
            transport.get_protocol().send_next()  # type: ignore[attr-defined]
        await _finished(run, warm_up_seconds + seconds)
    except OSError as error:
        raise LoadError(f"port {port}: {error}") from error
    finally:
        gc.enable()
        for transport in transports:
            transport.abort()
    if not run.window.latencies_ms:
        raise LoadError(f"port {port}: no request was answered after the warm-up")
    return run.window


async def _finished(run: _Run, seconds: float) -> None:
    """Returns when every connection is done; without an end, when there are no more requests."""
    patience = None if math.isinf(seconds) else seconds + PATIENCE_SECONDS
    try:
        await asyncio.wait_for(run.done, patience)
    except TimeoutError as error:
        raise LoadError(f"requests were still unanswered {PATIENCE_SECONDS:g} s later") from error


class _Run:
    """What the connections of one window share."""

    def __init__(
        self,
        next_request: NextRequest,
        check: Check | None,
        done: asyncio.Future[None],
        connections: int,
    ) -> None:
        self.next_request = next_request
        self.check = check
        self.done = done
        self.window = Window()
        self.counted_from = self.end = 0.0
        self._open = connections

    def start(self, warm_up_seconds: float, seconds: float) -> None:
        """The clock runs."""
        self.counted_from = time.perf_counter() + warm_up_seconds
        self.end = self.counted_from + seconds

    def answered(self, sent_at: float, now: float) -> None:
        """One good answer."""
        if sent_at >= self.counted_from:
            self.window.latencies_ms.append(1e3 * (now - sent_at))
            self.window.seconds = now - self.counted_from

    def finished(self) -> None:
        """One connection has nothing more to send."""
        self._open -= 1
        if self._open == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, trouble: str) -> None:
        """The whole window fails, once."""
        if not self.done.done():
            self.done.set_exception(LoadError(trouble))


class _Connection(asyncio.Protocol):
    """One connection: a request out, its answer in, no pipelining."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._sent_at = 0.0
        self._waiting = False
        self._pieces = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send_next(self) -> None:
        """Sends one more request, unless it is time to stop."""
        now = time.perf_counter()
        request = self._run.next_request() if now < self._run.end else None
        if request is None:
            self._waiting = False
            self._run.finished()
            return
        self._waiting = True
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._pieces:
            data = self._pieces + data
        head = data.find(_HEAD_END)
        if head < 0:
            self._pieces = data
            return
        length = _LENGTH.search(data, 0, head + 2)
        if length is None:
            self._run.fail(f"expected an answer with a content-length, got {_shown(data)}")
            return
        whole = head + len(_HEAD_END) + int(length[1])
        if len(data) < whole:
            self._pieces = data
            return
        self._pieces = b""
        now = time.perf_counter()
        if not data.startswith(_OK) or len(data) > whole or not self._waiting:
            self._run.fail(f"expected one answer with status 200, got {_shown(data)}")
            return
        if self._run.check is not None and (trouble := self._run.check(data)):
            self._run.fail(f"{trouble}: {_shown(data)}")
            return
        self._run.answered(self._sent_at, now)
        self.send_next()

    def connection_lost(self, _: Exception | None) -> None:
        if self._waiting:
            self._run.fail("the server closed a connection before it had answered")


def _shown(data: bytes) -> str:
    return data[:800].decode(errors="replace")
