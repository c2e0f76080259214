"""API keys as the ledger has them: who holds them, until when, and a hash; never the key itself.

Rows are not deleted: that a key was there, and who revoked it, is part of the record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from service.ledger.tables import api_keys


@dataclass(frozen=True)
class KeyRow:
    """One key. Times are microseconds since 1970."""

    key_id: str
    name: str
    role: str
    tenant: str
    sha256: str
    created_at_us: int
    created_by: str
    expires_at_us: int | None = None
    revoked_at_us: int | None = None
    revoked_by: str | None = None
    rotated_from: str | None = None
    """The key that it takes the place of."""


class KeyUnknownError(Exception):
    """There is no such key, or none that may still be changed."""


def read_keys(connection: Connection) -> list[KeyRow]:
    """Every key there ever was, the oldest first."""
    query = select(api_keys).order_by(api_keys.c.created_at_us, api_keys.c.key_id)
    return [KeyRow(**row._mapping) for row in connection.execute(query)]


def add_key(row: KeyRow) -> Callable[[Connection], None]:
    """A change of the ledger: one key more."""

    def change(connection: Connection) -> None:
        connection.execute(insert(api_keys).values(**asdict(row)))

    return change


def revoke_key(key_id: str, tenant: str | None, by: str, at_us: int) -> Callable[..., KeyRow]:
    """A change of the ledger: this key, if it is this tenant's (None: any), is valid no more. Doing
    it again changes nothing. It raises KeyUnknownError."""

    def change(connection: Connection) -> KeyRow:
        row = _find(connection, key_id, tenant)
        if row.revoked_at_us is not None:
            return row
        return _change(connection, row, revoked_at_us=at_us, revoked_by=by)

    return change


def rotate_key(
    key_id: str, tenant: str | None, new_id: str, sha256: str, by: str, at_us: int, until_us: int
) -> Callable[[Connection], tuple[KeyRow, KeyRow]]:
    """A change of the ledger: a new key takes the place of this one, which stays valid until then,
    or until it would have expired anyway. It gives both, and raises KeyUnknownError."""

    def change(connection: Connection) -> tuple[KeyRow, KeyRow]:
        row = _find(connection, key_id, tenant)
        if row.revoked_at_us is not None or (row.expires_at_us or at_us + 1) <= at_us:
            raise KeyUnknownError
        lasts = None if row.expires_at_us is None else row.expires_at_us - row.created_at_us
        new = KeyRow(
            key_id=new_id,
            name=row.name,
            role=row.role,
            tenant=row.tenant,
            sha256=sha256,
            created_at_us=at_us,
            created_by=by,
            expires_at_us=None if lasts is None else at_us + lasts,
            rotated_from=row.key_id,
        )
        connection.execute(insert(api_keys).values(**asdict(new)))
        ends = min(until_us, row.expires_at_us or until_us)
        return new, _change(connection, row, expires_at_us=ends)

    return change


def _find(connection: Connection, key_id: str, tenant: str | None) -> KeyRow:
    query = select(api_keys).where(api_keys.c.key_id == key_id).with_for_update()
    if tenant is not None:
        query = query.where(api_keys.c.tenant == tenant)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise KeyUnknownError
    return KeyRow(**row._mapping)


def _change(connection: Connection, row: KeyRow, **values: Any) -> KeyRow:
    connection.execute(update(api_keys).where(api_keys.c.key_id == row.key_id).values(**values))
    return KeyRow(**(asdict(row) | values))
