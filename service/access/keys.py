"""API keys: how one is made and read, and the ring of those that are valid, held in memory.

A key is `acclimate_<id>_<secret>`. Its id is no secret: records and logs name keys by it. Of the
secret, 32 random bytes, only the key's SHA-256 is kept; there is nothing in it to guess, so a slow
hash would protect nothing and cost every request.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from service.access.roles import ANYONE, EVERY_TENANT, Holder, Role
from service.clock import Clock
from service.ledger.keys import KeyRow, read_keys
from service.ledger.ledger import Ledger
from service.ledger.records import LedgerUnavailableError

PREFIX = "acclimate"
LONGEST = 256
"""Bytes of what is looked at as a key."""
LOOK_AGAIN_SECONDS = 0.2
"""Keys that are not known are looked for in the ledger at most once in so long."""
ADMIN_KEY_NAME = "ACCLIMATE_ADMIN_KEY"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is given out. Its text is shown once and kept nowhere."""

    key_id: str
    text: str

    @property
    def sha256(self) -> str:
        """What is kept of it, hex."""
        return digest(self.text.encode()).hex()


def new_key() -> NewKey:
    """A random one."""
    key_id = secrets.token_hex(8)
    return NewKey(key_id, f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}")


def digest(key: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(key).digest()


@dataclass(frozen=True, slots=True)
class _Valid:
    """One key of the ring."""

    digest: bytes
    expires_at_us: int | None
    holder: Holder


_NOBODY = _Valid(bytes(32), None, ANYONE)


class Keyring:
    """The keys that are valid, as the ledger had them at most a moment ago.

    Asking it costs microseconds and no round trip. `refresh` is called every so often, so that
    what another replica gave out or revoked is seen here; while the ledger cannot be read, the
    keys stay as they were last read.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        monotonic: Callable[[], float],
        admin_key: str | None = None,
        open_without_keys: bool = False,
        always_open: bool = False,
    ) -> None:
        """`admin_key` is the environment's. `open_without_keys`: nobody needs one as long as none
        was ever made; `always_open`: nor then."""
        self._ledger = ledger
        self._clock = clock
        self._monotonic = monotonic
        self._valid: dict[bytes, _Valid] = {}
        self._admin = digest(admin_key.encode()) if admin_key is not None else None
        self._administrator = Holder(ADMIN_KEY_NAME, Role.admin, EVERY_TENANT)
        self._open_without_keys = open_without_keys and admin_key is None
        self._always_open = always_open
        self._made = 0
        self._looked_at = -math.inf
        self._looking: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether nobody needs a key."""
        return self._always_open or (self._open_without_keys and not self._made)

    @property
    def is_empty(self) -> bool:
        """Whether no key is valid now."""
        now = self._clock()
        return self._admin is None and all(
            one.expires_at_us is not None and one.expires_at_us <= now
            for one in self._valid.values()
        )

    def holder(self, key: bytes) -> Holder | None:
        """Whose key this is; None when it is not valid. Takes as long whatever of it is wrong."""
        found = digest(key[:LONGEST])
        if self._admin is not None and hmac.compare_digest(found, self._admin):
            return self._administrator
        one = self._valid.get(_id_of(key), _NOBODY)
        if not hmac.compare_digest(found, one.digest) or one is _NOBODY:
            return None
        if one.expires_at_us is not None and one.expires_at_us <= self._clock():
            return None
        return one.holder

    async def look_again(self, key: bytes) -> Holder | None:
        """`holder`, of a key that was not known, once the ledger was asked: it may be new. Raises
        LedgerUnavailableError where nobody can tell."""
        if _id_of(key) in self._valid or not key.startswith(PREFIX.encode()):
            return None
        if self._looking is None:  # all who come meanwhile wait for the same look
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)
        return self.holder(key)

    async def _look(self) -> None:
        try:
            await asyncio.sleep(self._looked_at + LOOK_AGAIN_SECONDS - self._monotonic())
            await self.refresh()
        finally:
            self._looking = None

    async def refresh(self) -> None:
        """Reads the keys from the ledger. Raises LedgerUnavailableError."""
        self._looked_at = self._monotonic()
        self.take(await self._ledger.read(read_keys))

    async def keep_fresh(self, every_seconds: float) -> None:
        """Refreshes for ever."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await self.refresh()
            except LedgerUnavailableError as error:
                log.warning("keys stay as they were: %s", error)

    def take(self, rows: list[KeyRow]) -> None:
        """These are the keys now."""
        was_open = self.is_open
        self._made = len(rows)
        self._valid = {
            row.key_id.encode(): _Valid(
                bytes.fromhex(row.sha256),
                row.expires_at_us,
                Holder(f"{row.name} ({row.key_id})", Role[row.role], row.tenant),
            )
            for row in rows
            if row.revoked_at_us is None
        }
        if was_open and not self.is_open:
            log.info("there is a key: from now on every request needs one")


def _id_of(key: bytes) -> bytes:
    """The part of a key that names it; empty when it is not like one."""
    parts = key.split(b"_", 2)
    return parts[1] if len(parts) == 3 else b""
