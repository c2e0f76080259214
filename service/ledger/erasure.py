"""Erasure: an account's events, memories and name leave the ledger; keyed hashes stay.

A tombstone tells whoever holds the installation key that an id was erased, and others nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, text

from service.ledger.curve_tables import curve_marks
from service.ledger.records import AccountKey, AccountUnknownError, Head
from service.ledger.rollout_tables import rollout_accounts, rollouts
from service.ledger.statements import lock_names, run
from service.ledger.tables import (
    accounts,
    alarm_marks,
    alarms,
    decisions,
    defaults_due,
    feedback,
    generations,
    of_account,
    snapshots,
    tallies,
    tombstones,
)

SLICE = 1_000
"""Rows that one statement deletes."""


@dataclass(frozen=True)
class Tombstones:
    """The hashes of one installation."""

    key: bytes

    def __call__(self, kind: str, *parts: str) -> str:
        """Hex, of a `decision` (tenant, id) or an `account` (tenant, workflow, id)."""
        encoded = [part.encode() for part in ("tombstone", kind, *parts)]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
        return hmac.digest(self.key, message, hashlib.sha256)[:16].hex()


@dataclass(frozen=True)
class Erased:
    """How much an erasure deleted."""

    decisions: int
    feedback: int


def erase(connection: Connection, key: AccountKey, at_us: int, tombstone: Tombstones) -> Erased:
    """Deletes an account's rows, and leaves tombstones. Raises AccountUnknownError."""
    if connection.dialect.name == "postgresql":  # nobody may be adding a decision to it
        names = {"tenant": key.tenant, "workflow": key.workflow, "ids": [key.account_id]}
        connection.execute(text(lock_names(exclusive=True)), names)
    query = select(accounts.c.generation).where(*of_account(accounts, key)).with_for_update()
    generation = connection.scalar(query)
    if generation is None:
        raise AccountUnknownError
    given = connection.scalar(
        select(func.count()).select_from(feedback).where(*of_account(feedback, key))
    )
    made = 0
    query = select(decisions.c.decision_id).where(*of_account(decisions, key)).limit(SLICE)
    while ids := list(connection.scalars(query)):
        made += len(ids)
        for table in (defaults_due, feedback, decisions):
            columns = table.c
            connection.execute(
                delete(table).where(columns.tenant == key.tenant, columns.decision_id.in_(ids))
            )
        _leave(connection, [tombstone("decision", key.tenant, one) for one in ids], None, at_us)
    for table in (curve_marks, generations, snapshots, tallies, alarm_marks, alarms, accounts):
        connection.execute(delete(table).where(*of_account(table, key)))
    # What it added to a rollout's sums, and to curves, stays there and names nobody.
    own = rollout_accounts.c
    connection.execute(
        delete(rollout_accounts).where(
            own.tenant == key.tenant,
            own.account_id == key.account_id,
            own.rollout_id.in_(
                select(rollouts.c.rollout_id).where(rollouts.c.workflow == key.workflow)
            ),
        )
    )
    _leave(connection, [tombstone("account", *key)], generation, at_us)
    return Erased(made, given or 0)


def was_erased(connection: Connection, digest: str) -> bool:
    """Whether there is a tombstone of this digest."""
    query = select(tombstones.c.digest).where(tombstones.c.digest == digest)
    return connection.scalar(query) is not None


def starts_at(connection: Connection, digest: str) -> Head:
    """Where an account begins whose name has the tombstone of this digest, if there is one: above
    all that was erased."""
    query = select(tombstones.c.generation).where(tombstones.c.digest == digest)
    generation = connection.scalar(query)
    return Head() if generation is None else Head(generation + 1, 0)


def _leave(connection: Connection, digests: list[str], generation: int | None, at_us: int) -> None:
    connection.execute(delete(tombstones).where(tombstones.c.digest.in_(digests)))
    rows = [
        {"digest": digest, "generation": generation, "erased_at_us": at_us} for digest in digests
    ]
    run(connection, "add_tombstones", rows)
