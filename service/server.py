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
from service.runtime import open_service
from service.settings import SettingError, Settings

SWITCH_SECONDS = 0.000_5
"""How long the event loop keeps the interpreter from the ledger's threads: they need it for a
moment between two statements, while a group of requests waits for them."""
GARBAGE = (50_000, 20, 50)
"""When Python looks for cycles: a group of requests must not set it off by being in flight."""
FINISH_SECONDS = 10
"""How long requests in flight are waited for once no new ones are taken."""

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
    caught before anything else is closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_unretrieved)
    early = asyncio.Event()
    _on_signals(early.set)  # as process 1 of a container, nothing else would end it while it starts
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
                log.info("stopping")
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
