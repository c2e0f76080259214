"""Waits until somebody brought the ledger to the version that this release works on."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from service.ledger.reading import read_version
from service.ledger.version import newest, refuse_other, standing_of
from service.settings import Settings

LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


async def until_migrated(settings: Settings, stop: asyncio.Event | None = None) -> bool:
    """Returns once a service may open the ledger; false where `stop` was set before that.

    Where services migrate by themselves that is at once. Raises LedgerUnavailableError when the
    ledger cannot be opened, or is of a version that this release does not know.
    """
    if settings.migrations == "start":
        return True
    stop = stop or asyncio.Event()
    has_told = False
    while not stop.is_set():
        found = await asyncio.to_thread(read_version, settings.ledger)
        if standing_of(found) == "newer":
            refuse_other(found)
        if standing_of(found) == "current":
            return True
        if not has_told:
            log.warning("waiting for `acclimate migrate`: ledger %s, expected %s", found, newest())
            has_told = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
    return False
