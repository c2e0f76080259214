"""One process that serves: opens the service, listens, and stops without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from contract.bundle import BundleError
from contract.spec import SpecError
from service.api.problems import kinds
from service.app import create_app
from service.fault_points import arm
from service.ledger.records import LedgerUnavailableError
from service.logs import log_discreetly
from service.migration_wait import until_migrated
from service.runtime import open_service
from service.settings import SettingError, Settings

SWITCH_SECONDS = 0.000_5
"""How long the event loop keeps the interpreter from the ledger's threads: they need it for a
moment between two statements, while a group of requests waits for them."""
GARBAGE = (50_000, 20, 50)
"""When Python looks for cycles: a group of requests must not set it off by being in flight."""
FINISH_SECONDS = 10
"""How long requests in flight are waited for once no new ones are taken."""
LINGER_SECONDS = 0.5
"""How long, before that, accepted connections may still send the request they came for."""
KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than balancers keep theirs (60 seconds is usual), so
that none sends a request into a connection that is closed at that moment."""

log = logging.getLogger(__name__)


class RefusedToStartError(Exception):
    """What is configured cannot be served. The message names it."""


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then returns when every request in flight is answered and
    everything is closed. A second signal waits for no request. Raises RefusedToStartError."""
    log_discreetly(settings)
    arm(settings.fault_point)
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*GARBAGE)
    try:
        uvicorn_loop().run(_serve(settings))
    except (SpecError, BundleError, LedgerUnavailableError, SettingError) as error:
        raise RefusedToStartError(str(error)) from error


def uvicorn_loop() -> asyncio.Runner:
    """An event loop on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


class _Server(uvicorn.Server):
    """Uvicorn's server without its signal handlers, which end the process by the signal they
    caught before anything else is closed; and it lets go of connections without cutting any off."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def let_go(self) -> None:
        """Every answer from now on is the last one of its connection, and says so: clients come
        back by another one, to whom a balancer sends them."""
        last = (b"connection", b"close")
        self.config.encoded_headers.append(last)  # what the next second's headers are made from
        self.server_state.default_headers = [*self.server_state.default_headers, last]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn's, which closes every connection that has no request yet, once whoever was
        connected had the time to send one."""
        listening = [one.dup() for one in sockets or ()]
        for one in (*self.servers, *(sockets or ())):
            one.close()
        for one in listening:
            await self._accept_the_rest(one)
        for _ in range(round(LINGER_SECONDS / 0.02)):
            if self.force_exit or not self.server_state.connections:
                break
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _accept_the_rest(self, listening: socket.socket) -> None:
        """Takes whom the kernel let in already, then listens no more: closing alone would cut
        them off."""
        waiting = []
        listening.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting.append(listening.accept()[0])
        listening.close()
        for one in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, one)

    def _protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        made: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


async def _serve(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_unretrieved)
    early = asyncio.Event()
    _on_signals(early.set)  # as process 1 of a container, nothing else would end it while it starts
    if not await until_migrated(settings, early):
        return
    async with open_service(settings) as service:
        keyring = service.keyring
        settings.refuse_exposure(is_open=keyring.is_open, is_empty=keyring.is_empty)
        if keyring.is_open:
            log.warning(
                "open to everybody on this machine: no key is needed until `acclimate keys create`"
            )
        app = create_app(service)
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=FINISH_SECONDS,
        )
        server = _Server(config)

        def stop() -> None:
            """Not ready from now on; takes no more after a while. Asked again: ends now."""
            asked_before = app.state.stopping
            app.state.stopping = True
            if asked_before:
                server.should_exit = server.force_exit = True
            else:
                log.info("stopping in %g s", settings.drain_seconds)
                server.let_go()
                loop.call_later(settings.drain_seconds, setattr, server, "should_exit", True)

        app.state.stopping = False
        _on_signals(stop)
        if early.is_set():
            return
        # Bound here, so that a port that is taken is an error of ours with its own words.
        try:
            listening = socket.create_server((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise RefusedToStartError(f"cannot listen on {where}: {error.strerror}") from error
        await server.serve([listening])


def _on_signals(stop: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def _log_unretrieved(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio's own handler logs, without the texts of exceptions."""
    log.error("%s: %s", context["message"], kinds(context.get("exception")))
