"""Giving out keys and taking them back, by whoever may: an admin over REST, or the command line of
a machine that reaches the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from service.access.keys import new_key
from service.access.roles import DEFAULT_TENANT, EVERY_TENANT, Role
from service.clock import Clock
from service.ledger.keys import KeyRow, add_key, read_keys, revoke_key, rotate_key
from service.ledger.ledger import Ledger

LONGEST_OVERLAP_DAYS = 30.0
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Giver:
    """Who gives keys out, and of which tenant; None: any."""

    ledger: Ledger
    clock: Clock
    by: str
    tenant: str | None

    async def create(
        self, name: str, role: Role, tenant: str | None, days: float | None
    ) -> tuple[KeyRow, str]:
        """A new key, valid for `days` or until it is revoked, and its text. Without a tenant, it is
        the giver's; of one who gives any, a caller's is `default` and others' are every one."""
        if tenant is None:
            usual = DEFAULT_TENANT if role == Role.caller else EVERY_TENANT
            tenant = self.tenant or usual
        key, now = new_key(), self.clock()
        row = KeyRow(
            key_id=key.key_id,
            name=name,
            role=role.name,
            tenant=tenant,
            sha256=key.sha256,
            created_at_us=now,
            created_by=self.by,
            expires_at_us=None if days is None else now + round(days * DAY_US),
        )
        await self.ledger.change(add_key(row))
        return row, key.text

    async def keys(self) -> list[KeyRow]:
        """All there ever were."""
        rows = await self.ledger.read(read_keys)
        return [row for row in rows if self.tenant in (None, row.tenant)]

    async def revoke(self, key_id: str) -> KeyRow:
        """The key as it is then. Raises KeyUnknownError."""
        change = revoke_key(key_id, self.tenant, self.by, self.clock())
        return await self.ledger.change(change)

    async def rotate(self, key_id: str, overlap_days: float) -> tuple[KeyRow, str, KeyRow]:
        """A key in place of this one, its text, and this one, which stays valid for so long. Raises
        KeyUnknownError."""
        key, now = new_key(), self.clock()
        until = now + round(overlap_days * DAY_US)
        new, old = await self.ledger.change(
            rotate_key(key_id, self.tenant, key.key_id, key.sha256, self.by, now, until)
        )
        return new, key.text, old
