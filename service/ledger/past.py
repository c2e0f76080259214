"""An account's past as its ledger has it: pages of interactions above a memory or a snapshot.

Interactions are numbered within the account. Of several rows at one position, the one of the newest
generation stands; as of an older generation, the newest one up to that.
"""

from __future__ import annotations

import json

from sqlalchemy import Connection, func, select

from service.ledger.records import AccountKey, Head, Interaction, Past
from service.ledger.rows import find_account
from service.ledger.tables import decisions, feedback, generations, of_account, snapshots

PAGE = 2_000
"""Interactions read at a time."""


def read_past(
    connection: Connection,
    key: AccountKey,
    after: Head | None,
    digest: str | None,
    as_of: Head | None = None,
    below: int | None = None,
) -> Past:
    """A page of the past up to the account's head, or `as_of` an earlier one.

    It begins above `after`, where that is a head of this very past; else above the newest snapshot
    of the policy of `digest`, `below` that position where those above have proved unreadable; else
    (also with no digest) where the ledger does.
    """
    account = find_account(connection, key)
    if account is None:
        return Past(Head(), Head(), Head(), None, [])
    head = as_of or account.head
    base = account.base_generation
    if head.generation < base:
        base = _base(connection, key, head.generation)
    kept_above = account.kept_above if base == account.base_generation else 0
    snapshot, complete = None, True
    if (
        after is not None
        and after.generation == head.generation
        and kept_above <= after.position  # else what comes right above it is deleted
        and after <= head
    ):
        start = after
    else:
        found = None if digest is None else _snapshot(connection, key, digest, base, head, below)
        position, snapshot = found or (kept_above, None)
        start = Head(head.generation, position)
        complete = snapshot is not None or kept_above == 0
    end = Head(head.generation, min(head.position, start.position + PAGE))
    interactions = _interactions(connection, key, base, start, end)
    complete &= len(interactions) == end.position - start.position
    return Past(head, start, end, snapshot, interactions, complete)


def _base(connection: Connection, key: AccountKey, generation: int) -> int:
    """The generation of the last reset up to this one."""
    columns = generations.c
    reset = connection.scalar(
        select(func.max(columns.generation)).where(
            *of_account(generations, key),
            columns.reason == "reset",
            columns.generation <= generation,
        )
    )
    return reset or 0


def _snapshot(
    connection: Connection,
    key: AccountKey,
    digest: str,
    base: int,
    head: Head,
    below: int | None,
) -> tuple[int, bytes] | None:
    """The newest memory kept of this past, with its position.

    What was kept since `base` and is still there is a prefix of all generations from its own on.
    """
    columns = snapshots.c
    query = (
        select(columns.position, columns.memory)
        .where(
            *of_account(snapshots, key),
            columns.digest == digest,
            columns.position <= (head.position if below is None else min(head.position, below - 1)),
            columns.generation.between(base, head.generation),
        )
        .order_by(columns.position.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else (row.position, row.memory)


def _interactions(
    connection: Connection, key: AccountKey, base: int, start: Head, end: Head
) -> list[Interaction]:
    query = (
        select(
            feedback.c.position,
            feedback.c.folded_reward,
            feedback.c.folded_end,
            decisions.c.spec_version,
            decisions.c.context,
            decisions.c.action,
        )
        .join(
            decisions,
            (decisions.c.tenant == feedback.c.tenant)
            & (decisions.c.decision_id == feedback.c.decision_id),
        )
        .where(
            *of_account(feedback, key),
            feedback.c.position > start.position,
            feedback.c.position <= end.position,
            feedback.c.generation.between(base, end.generation),
        )
        .order_by(feedback.c.position, feedback.c.generation)
    )
    standing = {row.position: row for row in connection.execute(query)}
    return [
        Interaction(
            position,
            row.spec_version,
            json.loads(row.context),
            row.action,
            row.folded_reward,
            bool(row.folded_end),
        )
        for position, row in standing.items()
    ]
