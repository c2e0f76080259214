"""Retention: events that are old and that a kept memory has folded leave the ledger.

An account's past is cut at a position where a memory of every policy that serves it is kept; that
memory stays, so that what lies above can be revised and folded again.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    delete,
    exists,
    func,
    select,
    tuple_,
    update,
)

from service.fault_points import reach
from service.ledger.records import AccountKey
from service.ledger.rows import lock_accounts
from service.ledger.tables import (
    accounts,
    decisions,
    defaults_due,
    feedback,
    of_account,
    snapshots,
)

MOST = 1_000
"""Accounts, or decisions, that one transaction deals with."""


def find_cuts(
    connection: Connection, workflow: str, digests: Sequence[str], after: AccountKey | None
) -> list[tuple[AccountKey, int]]:
    """A page of accounts, in key order above `after`, with a position above what is deleted where
    every policy has a kept memory, and the newest such position."""
    kept = snapshots.c
    query = (
        select(kept.tenant, kept.account_id, kept.position)
        .join(
            accounts,
            (accounts.c.tenant == kept.tenant)
            & (accounts.c.workflow == kept.workflow)
            & (accounts.c.account_id == kept.account_id),
        )
        .where(
            kept.workflow == workflow,
            kept.digest.in_(digests),
            kept.position > accounts.c.kept_above,
        )
        .group_by(kept.tenant, kept.account_id, kept.position)
        .having(func.count() == len(digests))
        .order_by(kept.tenant, kept.account_id, kept.position)
        .limit(MOST)
    )
    if after is not None:
        query = query.where(tuple_(kept.tenant, kept.account_id) > (after.tenant, after.account_id))
    newest = {
        AccountKey(row.tenant, workflow, row.account_id): row.position
        for row in connection.execute(query)
    }
    return sorted(newest.items())


def cut(
    connection: Connection,
    key: AccountKey,
    position: int,
    digests: Sequence[str],
    before_us: int,
) -> int:
    """Deletes an account's interactions up to `position`, if they all are of before `before_us` and
    nothing above belongs to the same decisions; how many decisions."""
    own = of_account(accounts, key)
    account = connection.execute(select(accounts).where(*own).with_for_update()).first()
    kept = snapshots.c
    still_kept = select(func.count()).where(
        *of_account(snapshots, key),
        kept.position == position,
        kept.digest.in_(digests),
    )
    if account is None or connection.scalar(still_kept) != len(digests):
        return 0
    folded = _interactions(key) & (feedback.c.position <= position)
    young = (decisions.c.created_at_us >= before_us) | (decisions.c.expires_at_us >= before_us)
    below = select(feedback.c.decision_id).where(folded)
    too_young = select(decisions.c.decision_id).where(
        decisions.c.tenant == key.tenant, decisions.c.decision_id.in_(below), young
    )
    goes_on = select(feedback.c.decision_id).where(
        _interactions(key), feedback.c.position > position, feedback.c.decision_id.in_(below)
    )
    for blocking in (too_young, goes_on):
        if connection.execute(blocking.limit(1)).first() is not None:
            return 0
    connection.execute(update(accounts).where(*own).values(kept_above=position))
    ids = sorted(set(connection.scalars(below)))
    _delete(connection, key.tenant, ids)
    reach("retention.in_transaction")
    return len(ids)


def drop_unfolded(connection: Connection, workflow: str, before_us: int) -> int:
    """Deletes decisions of before `before_us` that nothing is folded for; how many."""
    columns, own = decisions.c, (decisions.c.tenant, decisions.c.decision_id)
    unfolded = select(*own, columns.workflow, columns.account_id).where(
        columns.workflow == workflow,
        columns.created_at_us < before_us,
        columns.expires_at_us < before_us,
        ~exists().where(_same_decision(feedback), feedback.c.position.is_not(None)),
        ~exists().where(
            # An active one is due when it expires: what the key begins with.
            defaults_due.c.due_at_us == columns.expires_at_us,
            _same_decision(defaults_due),
        ),
    )
    found = connection.execute(unfolded.limit(MOST)).all()
    # Under their accounts' locks, so that nothing is folded for them meanwhile.
    lock_accounts(
        connection, {AccountKey(row.tenant, row.workflow, row.account_id) for row in found}
    )
    ids = [(row.tenant, row.decision_id) for row in found]
    rows = connection.execute(unfolded.where(tuple_(*own).in_(ids))).all()
    for tenant in {row.tenant for row in rows}:
        _delete(connection, tenant, [row.decision_id for row in rows if row.tenant == tenant])
    return len(rows)


def _same_decision(table: Table) -> ColumnElement[bool]:
    return and_(
        table.c.tenant == decisions.c.tenant, table.c.decision_id == decisions.c.decision_id
    )


def _interactions(key: AccountKey) -> ColumnElement[bool]:
    return and_(*of_account(feedback, key), feedback.c.position.is_not(None))


def _delete(connection: Connection, tenant: str, ids: list[str]) -> None:
    for start in range(0, len(ids), MOST):
        some = ids[start : start + MOST]
        for table in (feedback, decisions):
            columns = table.c
            connection.execute(
                delete(table).where(columns.tenant == tenant, columns.decision_id.in_(some))
            )
