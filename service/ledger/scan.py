"""Walks through the ledger for whoever checks or exports it: page by page, by key, reading only.

Each function makes a query for `Ledger.read`. A page begins above where the last one ended, so that
none holds a transaction open while another is worked on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, exists, func, select, tuple_

from service.ledger.records import (
    Account,
    AccountKey,
    Decision,
    Feedback,
    Generation,
    Head,
    Snapshot,
)
from service.ledger.rows import find_account, find_feedback, to_account, to_decision, to_generation
from service.ledger.tables import accounts, decisions, feedback, generations, snapshots

PAGE = 1_000
"""Rows read at a time."""


class Scope(NamedTuple):
    """What part of a ledger is walked; None: all."""

    tenant: str | None = None
    workflow: str | None = None
    account_id: str | None = None


class Folded(NamedTuple):
    """A row that made or revised an interaction."""

    head: Head
    """The interaction's position, in the generation that made or revised it."""
    reward: float
    """Of the interaction."""
    spec_version: int
    """Under which its decision was made."""


class State(NamedTuple):
    """What the ledger says of an account, but for its events."""

    account: Account
    last_position: int
    """The highest one that an interaction since the last reset has."""
    generations: list[Generation]
    """In order."""
    snapshots: list[Snapshot]
    """One policy's, in order of position."""


Place = tuple[str, int, str]
"""Where a walk over a workflow's decisions stands: account, time, decision id."""


def read_accounts(
    scope: Scope, after: str | None, limit: int
) -> Callable[[Connection], list[Account]]:
    """The next accounts of a tenant's workflow above the name `after`, in order."""
    name = accounts.c.account_id
    query = select(accounts).where(*_within(accounts, scope)).order_by(name).limit(limit)
    if after is not None:
        query = query.where(name > after)
    return lambda connection: [to_account(row) for row in connection.execute(query)]


def read_keys(
    workflow: str, after: tuple[str, str] | None, limit: int
) -> Callable[[Connection], list[AccountKey]]:
    """The next accounts of a workflow, of all tenants, above (tenant, account), in order."""
    columns = accounts.c
    place = columns.tenant, columns.account_id
    query = select(*place).where(columns.workflow == workflow).order_by(*place).limit(limit)
    if after is not None:
        query = query.where(tuple_(*place) > tuple_(*after))
    return lambda connection: [
        AccountKey(row.tenant, workflow, row.account_id) for row in connection.execute(query)
    ]


def read_scopes(scope: Scope) -> Callable[[Connection], list[Scope]]:
    """The pairs of tenant and workflow in scope that have accounts: what is walked one by one, as
    only then do the keys carry a walk from page to page."""
    columns = accounts.c.tenant, accounts.c.workflow
    query = select(*columns).distinct().where(*_within(accounts, scope)).order_by(*columns)
    return lambda connection: [Scope(*row) for row in connection.execute(query)]


def count_accounts(scope: Scope) -> Callable[[Connection], int]:
    """How many accounts are in scope."""
    query = select(func.count()).select_from(accounts).where(*_within(accounts, scope))
    return lambda connection: connection.scalar(query) or 0


def read_state(key: AccountKey, digest: str) -> Callable[[Connection], State | None]:
    """An account, its generations, and the memories kept of the policy of `digest`."""

    def query(connection: Connection) -> State | None:
        before = find_account(connection, key)
        if before is None:
            return None
        # What moves in between is in the account, which is read last.
        last = _last_position(connection, key, before.base_generation)
        opened = read_generations(key)(connection)
        kept = read_snapshots(key, digest)(connection)
        account = find_account(connection, key)
        return None if account is None else State(account, last, opened, kept)

    return query


def read_generations(key: AccountKey) -> Callable[[Connection], list[Generation]]:
    """What changed an account's past, in order."""
    query = (
        select(generations)
        .where(*_within(generations, Scope(*key)))
        .order_by(generations.c.generation)
    )
    return lambda connection: [to_generation(key, row) for row in connection.execute(query)]


def read_snapshots(
    key: AccountKey, digest: str | None = None
) -> Callable[[Connection], list[Snapshot]]:
    """The memories kept of an account, of the policy of `digest` or of all, oldest first."""
    query = (
        select(snapshots)
        .where(*_within(snapshots, Scope(*key)))
        .order_by(snapshots.c.digest, snapshots.c.position)
    )
    if digest is not None:
        query = query.where(snapshots.c.digest == digest)
    return lambda connection: [
        Snapshot(
            key,
            row.policy,
            row.digest,
            Head(row.generation, row.position),
            row.memory,
            row.created_at_us,
        )
        for row in connection.execute(query)
    ]


def read_folded(
    key: AccountKey, base: int, head: Head, after: Head | None, limit: int
) -> Callable[[Connection], list[Folded]]:
    """The next rows that made or revised interactions since the generation `base` up to `head`,
    by position and then generation, above `after`."""
    place = feedback.c.position, feedback.c.generation
    query = (
        select(*place, feedback.c.folded_reward, decisions.c.spec_version)
        .join(decisions, _of_decision())
        .where(
            *_within(feedback, Scope(*key)),
            feedback.c.position <= head.position,
            feedback.c.generation.between(base, head.generation),
        )
        .order_by(*place)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(*place) > tuple_(after.position, after.generation))
    return lambda connection: [
        Folded(Head(row.generation, row.position), row.folded_reward, row.spec_version)
        for row in connection.execute(query)
    ]


def read_decisions(
    scope: Scope,
    after: Place | None,
    limit: int,
    *,
    since_us: int | None = None,
    folded_only: bool = False,
) -> Callable[[Connection], list[tuple[Decision, list[Feedback]]]]:
    """The next decisions of a tenant's workflow above `after`, account by account in order of time,
    each with what came of it."""
    columns = decisions.c
    place = columns.account_id, columns.created_at_us, columns.decision_id
    query = _chosen(select(decisions), scope, since_us, folded_only).order_by(*place).limit(limit)
    if after is not None:
        query = query.where(tuple_(*place) > tuple_(*after))

    def read(connection: Connection) -> list[tuple[Decision, list[Feedback]]]:
        found = [to_decision(row) for row in connection.execute(query)]
        came = _came_of(connection, found)
        return [(one, came[one.key.tenant, one.decision_id]) for one in found]

    return read


def place_of(decision: Decision) -> Place:
    """Where a walk stands that has seen `decision`."""
    return decision.key.account_id, decision.created_at_us, decision.decision_id


def count_decisions(
    scope: Scope, *, since_us: int | None = None, folded_only: bool = False
) -> Callable[[Connection], int]:
    """How many decisions `read_decisions` walks over."""
    query = _chosen(select(func.count()).select_from(decisions), scope, since_us, folded_only)
    return lambda connection: connection.scalar(query) or 0


def _chosen(
    query: Select[Any], scope: Scope, since_us: int | None, folded_only: bool
) -> Select[Any]:
    query = query.where(*_within(decisions, scope))
    if since_us is not None:
        query = query.where(decisions.c.created_at_us >= since_us)
    if folded_only:
        interaction = exists().where(_of_decision(), feedback.c.position.is_not(None))
        query = query.where(interaction)
    return query


def _came_of(
    connection: Connection, found: Sequence[Decision]
) -> dict[tuple[str, str], list[Feedback]]:
    """What came of each of these decisions, in order of arrival."""
    came: dict[tuple[str, str], list[Feedback]] = defaultdict(list)
    for given in find_feedback(connection, {(one.key.tenant, one.decision_id) for one in found}):
        came[given.key.tenant, given.decision_id].append(given)
    return came


def _last_position(connection: Connection, key: AccountKey, base: int) -> int:
    query = (
        select(feedback.c.position)
        .where(*_within(feedback, Scope(*key)), feedback.c.generation >= base)
        .order_by(feedback.c.position.desc())
        .limit(1)
    )
    return connection.scalar(query) or 0


def _within(table: Table, scope: Scope) -> list[ColumnElement[bool]]:
    named = zip(scope._fields, scope, strict=True)
    return [table.c[name] == value for name, value in named if value is not None]


def _of_decision() -> ColumnElement[bool]:
    return and_(
        decisions.c.tenant == feedback.c.tenant,
        decisions.c.decision_id == feedback.c.decision_id,
    )
