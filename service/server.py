"""One process that serves: opens the service, listens, and stops without losing a request."""

from __future__ import annotations

import asyncio
import logging
import socket

import uvicorn

from contract.bundle import BundleError
from contract.spec import SpecError
from service.app import create_app
from service.ledger.records import LedgerUnavailableError
from service.runtime import open_service
from service.settings import Settings


class RefusedToStartError(Exception):
    """What is configured cannot be served. The message names it."""


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, finishing requests in flight. Raises RefusedToStartError."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        uvicorn_loop().run(_serve(settings))
    except (SpecError, BundleError, LedgerUnavailableError) as error:
        raise RefusedToStartError(str(error)) from error


def uvicorn_loop() -> asyncio.Runner:
    """An event loop on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _serve(settings: Settings) -> None:
    async with open_service(settings) as service:
        config = uvicorn.Config(
            create_app(service),
            host=settings.host,
            port=settings.port,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=10,
        )
        # Bound here, so that a port that is taken is an error of ours with its own words.
        try:
            listening = socket.create_server((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise RefusedToStartError(f"cannot listen on {where}: {error.strerror}") from error
        await uvicorn.Server(config).serve([listening])
