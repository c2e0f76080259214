"""Alarms and what is kept to find them: rows of the ledger, read and written in whole pages.

A page is written in one transaction, and only if nothing of what it rests on has changed: a run
that is killed, or beside another, counts nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from service.fault_points import reach
from service.ledger.records import AccountKey
from service.ledger.tables import (
    accounts,
    alarm_marks,
    alarm_streams,
    alarms,
    decisions,
    feedback,
    of_account,
)

LONGEST = 10_000
"""Interactions of one account that are looked at in one go; of more, the newest."""


class Mark(NamedTuple):
    """How far an account has been looked at."""

    base_generation: int = 0
    position: int = 0
    anchor: int = 0
    """Rewards above this position are looked at for a fall."""


class Row(NamedTuple):
    """One interaction, with the decision that it came of."""

    position: int
    reward: float
    policy: str
    context: dict[str, Any]
    action: str
    probability: float
    reason: str
    limited: bool


StreamKey = tuple[str, str, str, str]
"""(tenant, workflow, policy, bucket); no bucket: the whole workflow."""


class StoredStream(NamedTuple):
    """A stream as it was read."""

    version: int
    body: dict[str, Any]


class Alarm(NamedTuple):
    """One alarm, as the ledger has it."""

    alarm_id: str
    tenant: str
    workflow: str
    kind: str
    scope: str
    account_id: str
    """Empty unless it is about one."""
    bucket: str
    """Empty unless it is about one."""
    policy: str
    consequence: str
    base_generation: int
    """Of the account, when it was raised."""
    position: int
    cause: str
    suggestion: str
    numbers: dict[str, float]
    raised_at_us: int
    acknowledged_at_us: int | None = None
    acknowledged_by: str | None = None
    acted_at_us: int | None = None
    """When the memory was reset, where that is the consequence."""
    cleared_at_us: int | None = None
    cleared_by: str | None = None
    note: str | None = None

    @property
    def subject(self) -> dict[str, str]:
        """What at most one open alarm is about: an account, or a crowd under a policy."""
        subject = {
            "tenant": self.tenant,
            "workflow": self.workflow,
            "kind": self.kind,
            "account_id": self.account_id,
            "bucket": self.bucket,
        }
        return subject if self.account_id else subject | {"policy": self.policy}


class Page(NamedTuple):
    """What a look at some accounts comes to."""

    marks: dict[AccountKey, tuple[Mark, Mark]]
    """As read, and as they are to be."""
    streams: dict[StreamKey, tuple[int, dict[str, Any]]]
    """The version that was read, and what they are to be."""
    raised: list[Alarm]
    cleared: list[tuple[str, str]]
    """Ids, and by what."""
    at_us: int


def alarm_id(*parts: object) -> str:
    """The same for the same finding, however often it is found."""
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:32]


def read_marks(keys: Sequence[AccountKey]) -> Callable[[Connection], dict[AccountKey, Mark]]:
    """The marks of these accounts; those that were never looked at have none."""

    def query(connection: Connection) -> dict[AccountKey, Mark]:
        columns = alarm_marks.c
        own = tuple_(columns.tenant, columns.workflow, columns.account_id).in_(list(keys))
        return {
            AccountKey(row.tenant, row.workflow, row.account_id): Mark(
                row.base_generation, row.position, row.anchor
            )
            for row in connection.execute(select(alarm_marks).where(own))
        }

    return query


Place = tuple[int, str, str, str]
"""Where a walk over what changed stands: when, and which account changed then."""


def read_changed(
    after: Place, limit: int
) -> Callable[[Connection], list[tuple[AccountKey, Place]]]:
    """The next accounts with a past, by when they changed last."""
    columns = accounts.c
    place = columns.updated_at_us, columns.tenant, columns.workflow, columns.account_id
    query = (
        select(*place)
        .where(
            columns.updated_at_us >= after[0],  # what the index knows
            tuple_(*place) > tuple_(*after),
            columns.position > 0,
        )
        .order_by(*place)
        .limit(limit)
    )
    return lambda connection: [
        (AccountKey(*row[1:]), tuple(row)) for row in connection.execute(query)
    ]


def read_rows(
    key: AccountKey, base: int, generation: int, after: int, until: int
) -> Callable[[Connection], list[Row]]:
    """An account's interactions above `after` up to `until`, each as its newest generation has it,
    oldest first."""
    came, made = feedback.c, decisions.c
    query = (
        select(came.position, came.folded_reward, *_DECIDED)
        .join(decisions, and_(made.tenant == came.tenant, made.decision_id == came.decision_id))
        .where(
            *of_account(feedback, key),
            came.position > max(after, until - LONGEST),
            came.position <= until,
            came.generation.between(base, generation),
        )
        .order_by(came.position, came.generation)
    )

    def read(connection: Connection) -> list[Row]:
        newest = {row.position: row for row in connection.execute(query)}
        return [
            Row(
                row.position,
                row.folded_reward,
                row.policy,
                json.loads(row.context),
                row.action,
                row.probability,
                row.reason,
                row.limits != "[]",
            )
            for row in newest.values()
        ]

    return read


_DECIDED = [
    decisions.c[name] for name in ("policy", "context", "action", "probability", "reason", "limits")
]


def read_streams(
    tenant: str, workflow: str, policy: str
) -> Callable[[Connection], dict[StreamKey, StoredStream]]:
    """The streams of a tenant's workflow under a policy."""
    columns = alarm_streams.c
    own = (columns.tenant == tenant, columns.workflow == workflow, columns.policy == policy)
    return lambda connection: {
        (tenant, workflow, policy, row.bucket): StoredStream(row.version, json.loads(row.body))
        for row in connection.execute(select(alarm_streams).where(*own))
    }


def read_open(
    *, keys: Sequence[AccountKey] | None = None, consequence: str | None = None
) -> Callable[[Connection], list[Alarm]]:
    """The open alarms: all, those about these accounts, those of one consequence."""
    columns = alarms.c
    query = select(alarms).where(columns.cleared_at_us.is_(None)).order_by(columns.raised_at_us)
    if keys is not None:
        about = tuple_(columns.tenant, columns.workflow, columns.account_id)
        query = query.where(about.in_(list(keys)))
    if consequence is not None:
        query = query.where(columns.consequence == consequence)
    return lambda connection: [_alarm(row) for row in connection.execute(query)]


def list_alarms(
    tenant: str | None,
    *,
    workflow: str | None = None,
    kind: str | None = None,
    account_id: str | None = None,
    open_only: bool = True,
    before: tuple[int, str] | None = None,
    limit: int = 100,
) -> Callable[[Connection], list[Alarm]]:
    """Alarms, the newest first, below (raised_at_us, id) where that is given."""
    columns = alarms.c
    query = select(alarms).order_by(columns.raised_at_us.desc(), columns.alarm_id.desc())
    equal = {"tenant": tenant, "workflow": workflow, "kind": kind, "account_id": account_id}
    for name, value in equal.items():
        if value is not None:
            query = query.where(columns[name] == value)
    if open_only:
        query = query.where(columns.cleared_at_us.is_(None))
    if before is not None:
        at, last = before
        query = query.where(
            or_(
                columns.raised_at_us < at,
                and_(columns.raised_at_us == at, columns.alarm_id < last),
            )
        )
    return lambda connection: [_alarm(row) for row in connection.execute(query.limit(limit))]


def count_open(connection: Connection) -> dict[tuple[str, str, str, str], int]:
    """Open alarms by (workflow, kind, scope, bucket)."""
    columns = alarms.c
    by = (columns.workflow, columns.kind, columns.scope, columns.bucket)
    query = select(*by, func.count()).where(columns.cleared_at_us.is_(None)).group_by(*by)
    return {tuple(row[:4]): row[4] for row in connection.execute(query)}


def write_page(connection: Connection, page: Page) -> list[Alarm] | None:
    """Writes it whole; the alarms that are new. None, and nothing is written, when what it rests on
    has changed. Of an account that was erased meanwhile nothing is left behind."""
    # In key order, as whoever else locks accounts: an erasure waits, or was faster.
    keys = sorted(page.marks)
    here = {
        AccountKey(*row)
        for key in keys
        for row in connection.execute(
            select(accounts.c.tenant, accounts.c.workflow, accounts.c.account_id)
            .where(*of_account(accounts, key))
            .with_for_update()
        )
    }
    known = read_marks(keys)(connection)
    if any(known.get(key, Mark()) != was for key, (was, _) in page.marks.items()):
        return None
    if not _streams_are(connection, page):
        return None
    marks = {key: mark for key, (_, mark) in page.marks.items() if key in here}
    _replace(
        connection, alarm_marks, [key._asdict() | mark._asdict() for key, mark in marks.items()]
    )
    _replace(
        connection,
        alarm_streams,
        [
            {
                "tenant": tenant,
                "workflow": workflow,
                "policy": policy,
                "bucket": bucket,
                "version": version + 1,
                "body": json.dumps(body),
            }
            for (tenant, workflow, policy, bucket), (version, body) in page.streams.items()
        ],
    )
    raised = [
        one
        for one in page.raised
        if not one.account_id or AccountKey(one.tenant, one.workflow, one.account_id) in here
    ]
    new = [one for one in raised if _raise(connection, one)]
    for known_id, by in page.cleared:
        clear(connection, known_id, by, page.at_us)
    reach("alarms.in_transaction")
    return new


def acknowledge(
    connection: Connection, known_id: str, by: str, note: str | None, at_us: int
) -> None:
    """Notes who has seen an alarm; the first who did stays."""
    columns = alarms.c
    values: dict[str, Any] = {"acknowledged_at_us": at_us, "acknowledged_by": by}
    if note is not None:
        values["note"] = note
    seen = (columns.alarm_id == known_id, columns.acknowledged_at_us.is_(None))
    connection.execute(update(alarms).where(*seen).values(**values))


def clear(connection: Connection, known_id: str, by: str, at_us: int) -> None:
    """Ends an alarm, and what it had follow; one that has ended stays as it is."""
    columns = alarms.c
    still = (columns.alarm_id == known_id, columns.cleared_at_us.is_(None))
    connection.execute(update(alarms).where(*still).values(cleared_at_us=at_us, cleared_by=by))


def change_stream(
    connection: Connection, key: StreamKey, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Puts what `change` gives in the stream's place, so that a look that read it before is
    refused."""
    own = _is_stream(key)
    row = connection.execute(select(alarm_streams).where(*own).with_for_update()).first()
    if row is not None:
        body = json.dumps(change(json.loads(row.body)))
        connection.execute(
            update(alarm_streams).where(*own).values(version=row.version + 1, body=body)
        )


def acted(connection: Connection, known_id: str, at_us: int) -> None:
    """Notes that the memory was reset, which ends the alarm."""
    own = alarms.c.alarm_id == known_id
    connection.execute(update(alarms).where(own).values(acted_at_us=at_us))
    clear(connection, known_id, "the reset of its memory", at_us)


def find_alarm(tenant: str, known_id: str) -> Callable[[Connection], Alarm | None]:
    """The tenant's alarm of that id."""
    columns = alarms.c
    query = select(alarms).where(columns.tenant == tenant, columns.alarm_id == known_id)

    def find(connection: Connection) -> Alarm | None:
        row = connection.execute(query).first()
        return None if row is None else _alarm(row)

    return find


def _raise(connection: Connection, alarm: Alarm) -> bool:
    """Whether it is new: not raised before, and nothing open is about the same."""
    columns = alarms.c
    same = and_(*(columns[name] == value for name, value in alarm.subject.items()))
    twin = or_(columns.alarm_id == alarm.alarm_id, and_(same, columns.cleared_at_us.is_(None)))
    if connection.execute(select(columns.alarm_id).where(twin).limit(1)).first() is not None:
        return False
    row = alarm._asdict() | {"numbers": json.dumps(alarm.numbers)}
    connection.execute(insert(alarms).values(**row))
    return True


def _streams_are(connection: Connection, page: Page) -> bool:
    """Whether the streams are as they were read; they stay so until the transaction ends."""
    for key, (version, _) in sorted(page.streams.items()):
        query = select(alarm_streams.c.version).where(*_is_stream(key))
        if (connection.scalar(query.with_for_update()) or 0) != version:
            return False
    return True


def _is_stream(key: StreamKey) -> list[ColumnElement[bool]]:
    named = zip(("tenant", "workflow", "policy", "bucket"), key, strict=True)
    return [alarm_streams.c[name] == value for name, value in named]


def _replace(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """These rows in place of those of the same keys."""
    key = [column.name for column in table.primary_key.columns]
    for row in rows:
        own = [table.c[name] == row[name] for name in key]
        connection.execute(delete(table).where(*own))
        connection.execute(insert(table).values(**row))


def _alarm(row: Any) -> Alarm:
    body = dict(row._mapping)
    return Alarm(**(body | {"numbers": json.loads(body["numbers"])}))
