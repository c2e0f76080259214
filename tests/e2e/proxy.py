"""A balancer for tests: hands each connection to the next replica whose /readyz is green.

It knows nothing of HTTP but that one question, as a balancer of layer 4 does, so that whatever a
replica does to a connection reaches the client as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.processes import free_port

CHECK_SECONDS = 0.1
"""Between two questions to each replica."""
_CHECK = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Proxy:
    """Listens on a port of its own for as long as the `with` lasts."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.port = free_port()
        self.ready: list[int] = []
        """Ports of the replicas that are, as last seen."""
        self.handed: dict[int, int] = dict.fromkeys(ports, 0)
        """Connections given to each."""
        self.refused = 0
        """Connections that no replica took."""
        self._ports = list(ports)
        self._turn = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._up = threading.Event()
        self._end = asyncio.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        await self._check_all()
        checks = asyncio.create_task(self._keep_checking())
        server = await asyncio.start_server(self._hand_on, "127.0.0.1", self.port)
        self._up.set()
        await self._end.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in (checks, *others):
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await self._check_all()

    async def _check_all(self) -> None:
        answers = await asyncio.gather(*(self._is_ready(port) for port in self._ports))
        self.ready = [port for port, good in zip(self._ports, answers, strict=True) if good]

    async def _is_ready(self, port: int) -> bool:
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(_CHECK)
                line = await reader.readline()
                writer.close()
                return b" 200 " in line
        except (OSError, TimeoutError):
            return False

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            upstream = await self._next()
            if upstream is None:
                self.refused += 1
                writer.close()
                return
            await asyncio.gather(_pipe(reader, upstream[1]), _pipe(upstream[0], writer))

    async def _next(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in range(len(self._ports)):
            if not self.ready:
                return None
            port = self.ready[self._turn % len(self.ready)]
            self._turn += 1
            with contextlib.suppress(OSError):
                connection = await asyncio.open_connection("127.0.0.1", port)
                self.handed[port] += 1
                return connection
        return None


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()
