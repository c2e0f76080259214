"""Adaptation curves in the ledger: mean reward by interaction number, for each policy and the
fallback.

They are sums, counted on from accounts that changed: to read one costs a row, however large the
ledger. Of an account the first `LONGEST` interactions count, each once; where its past was revised,
what it came to before is taken back. An account that was reset begins again at 1, and what it did
before stays counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, delete, insert, select, text, tuple_

from service.ledger.curve_tables import curve_marks, curves
from service.ledger.records import AccountKey, Head
from service.ledger.statements import lock_names
from service.ledger.tables import accounts, decisions, feedback

Array = NDArray[np.float64]

LONGEST = 200
"""Interaction numbers that a curve has."""
FALLBACK = "fallback"
"""In place of a policy: accounts that the fallback decides for whatever they do."""
_ON_FALLBACK = ("held_out", "not_in_rollout", "kill_switch")
ASKED_AT_ONCE = 100
"""Accounts whose interactions one statement reads: those of about the same position."""

Place = tuple[int, str, str, str]
"""Where a walk over changed accounts stands: when, and which account changed then."""
CurveKey = tuple[str, str, str]
"""(tenant, workflow, policy)."""


class Mark(NamedTuple):
    """How much of an account's past is counted in."""

    base_generation: int = 0
    head: Head = Head()


class Changed(NamedTuple):
    """An account that changed, as it is now."""

    key: AccountKey
    place: Place
    mark: Mark
    """All of it."""


class Page(NamedTuple):
    """What some accounts add to the curves."""

    marks: dict[AccountKey, tuple[Mark | None, Mark]]
    """As read, and as they are to be."""
    sums: dict[CurveKey, Array]
    """`[3, LONGEST]` each: interactions, rewards, squares."""


class Curve(NamedTuple):
    """One policy's curve, all `[LONGEST]`; where n is 0, mean and error are NaN."""

    n: Array
    mean: Array
    error: Array
    """Standard error of the mean; NaN where n is 1."""


def read_changed(after: Place, limit: int) -> Callable[[Connection], list[Changed]]:
    """The next accounts with a past, by when they changed last."""
    columns = accounts.c
    place = columns.updated_at_us, columns.tenant, columns.workflow, columns.account_id
    query = (
        select(*place, columns.base_generation, columns.generation, columns.position)
        .where(
            columns.updated_at_us >= after[0],  # what the index knows
            tuple_(*place) > tuple_(*after),
        )
        .order_by(*place)
        .limit(limit)
    )
    return lambda connection: [
        Changed(
            AccountKey(row.tenant, row.workflow, row.account_id),
            (row.updated_at_us, row.tenant, row.workflow, row.account_id),
            Mark(row.base_generation, Head(row.generation, row.position)),
        )
        for row in connection.execute(query)
    ]


def count(changed: Sequence[Changed]) -> Callable[[Connection], Page]:
    """What these accounts add to the curves beyond what is counted in."""

    def query(connection: Connection) -> Page:
        marks = _read_marks(connection, [one.key for one in changed])
        page = Page({}, defaultdict(_nothing))
        waiting: dict[tuple[str, str], list[tuple[int, Changed]]] = defaultdict(list)
        for one in changed:
            was = marks.get(one.key)
            goes_on = was is not None and was.head.generation == one.mark.head.generation
            above = was.head.position if was is not None and goes_on else 0
            if (was or Mark()) != one.mark and above < LONGEST:
                page.marks[one.key] = (was, one.mark)
                waiting[one.key.tenant, one.key.workflow].append((above, one))
        for (tenant, workflow), some in waiting.items():
            some.sort(key=lambda one: one[0])
            for start in range(0, len(some), ASKED_AT_ONCE):
                chunk = some[start : start + ASKED_AT_ONCE]
                rows = _read_rows(connection, tenant, workflow, chunk)
                for _, one in chunk:
                    own = rows.get(one.key.account_id, ())
                    _add(page.sums, one, marks.get(one.key), own)
        return page

    return query


def write_page(connection: Connection, page: Page) -> bool:
    """Writes it whole. False, and nothing is written, where another has counted meanwhile. Of an
    account that was erased meanwhile only what it added to the sums stays, which names nobody."""
    keys = sorted(page.marks)
    here = set()
    for tenant, workflow, names in _by_workflow(keys):
        if connection.dialect.name == "postgresql":  # an erasure waits, or was faster
            held = {"tenant": tenant, "workflow": workflow, "ids": names}
            connection.execute(text(lock_names(exclusive=False)), held)
        columns = accounts.c
        query = select(columns.account_id).where(
            columns.tenant == tenant,
            columns.workflow == workflow,
            columns.account_id.in_(names),
        )
        here |= {AccountKey(tenant, workflow, one) for one in connection.scalars(query)}
    known = _read_marks(connection, keys)
    if any(known.get(key) != was for key, (was, _) in page.marks.items()):
        return False
    for tenant, workflow, names in _by_workflow(keys):
        own = curve_marks.c
        connection.execute(
            delete(curve_marks).where(
                own.tenant == tenant, own.workflow == workflow, own.account_id.in_(names)
            )
        )
    rows = [
        {**key._asdict(), "base_generation": mark.base_generation, **mark.head._asdict()}
        for key, (_, mark) in page.marks.items()
        if key in here
    ]
    if rows:
        connection.execute(insert(curve_marks), rows)
    for (tenant, workflow, policy), added in sorted(page.sums.items()):
        columns_ = curves.c
        own_row = (
            columns_.tenant == tenant,
            columns_.workflow == workflow,
            columns_.policy == policy,
        )
        stored = connection.scalar(select(columns_.sums).where(*own_row).with_for_update())
        total = added if stored is None else _from_bytes(stored) + added
        connection.execute(delete(curves).where(*own_row))
        connection.execute(
            insert(curves).values(
                tenant=tenant, workflow=workflow, policy=policy, sums=total.tobytes()
            )
        )
    return True


def read_curves(tenant: str, workflow: str) -> Callable[[Connection], dict[str, Curve]]:
    """The curves of a tenant's workflow, by policy or `fallback`."""
    columns = curves.c
    query = select(columns.policy, columns.sums).where(
        columns.tenant == tenant, columns.workflow == workflow
    )
    return lambda connection: {
        row.policy: curve_of(_from_bytes(row.sums)) for row in connection.execute(query)
    }


def curve_of(sums: Array) -> Curve:
    """The curve of sums `[3, N]`."""
    n, total, squares = np.maximum(sums[0], 0.0), sums[1], sums[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n
        variance = np.maximum(squares / n - mean**2, 0.0)
        error = np.sqrt(variance / np.where(n > 1, n - 1, np.nan))
    return Curve(n, np.where(n > 0, mean, np.nan), error)


def _read_marks(connection: Connection, keys: Iterable[AccountKey]) -> Mapping[AccountKey, Mark]:
    columns, found = curve_marks.c, {}
    for tenant, workflow, names in _by_workflow(keys):
        query = select(curve_marks).where(
            columns.tenant == tenant, columns.workflow == workflow, columns.account_id.in_(names)
        )
        for row in connection.execute(query):
            key = AccountKey(tenant, workflow, row.account_id)
            found[key] = Mark(row.base_generation, Head(row.generation, row.position))
    return found


def _read_rows(
    connection: Connection, tenant: str, workflow: str, some: Sequence[tuple[int, Changed]]
) -> dict[str, list[Row[Any]]]:
    """By account, its interactions above the lowest position that any of these asks for, oldest
    generation first."""
    came, made = feedback.c, decisions.c
    query = (
        select(
            came.account_id,
            came.position,
            came.generation,
            came.folded_reward,
            made.policy,
            made.reason,
        )
        .join(decisions, (made.tenant == came.tenant) & (made.decision_id == came.decision_id))
        .where(
            came.account_id.in_([one.key.account_id for _, one in some]),
            came.workflow == workflow,
            came.tenant == tenant,
            came.position > some[0][0],
            came.position <= LONGEST,
        )
    )
    rows: dict[str, list[Row[Any]]] = defaultdict(list)
    found: list[Any] = list(connection.execute(query))
    for row in found:
        rows[row.account_id].append(row)
    for own in rows.values():
        own.sort(key=lambda row: row.generation)
    return rows


def _add(
    sums: dict[CurveKey, Array], account: Changed, was: Mark | None, rows: Iterable[Row[Any]]
) -> None:
    """Adds what the account's interactions come to now, and takes back what they came to."""
    now: dict[int, Row[Any]] = {}
    before: dict[int, Row[Any]] = {}
    same_life = was is not None and was.base_generation == account.mark.base_generation
    for row in rows:
        if _is_within(row, account.mark):
            now[row.position] = row
        if was is not None and same_life and _is_within(row, was):
            before[row.position] = row
    for sign, found in ((1.0, now), (-1.0, before)):
        for position, row in found.items():
            policy = row.policy if row.reason == "policy" else FALLBACK
            if row.reason != "policy" and row.reason not in _ON_FALLBACK:
                continue
            if sign > 0 and before.get(position) is row:
                continue
            if sign < 0 and now.get(position) is row:
                continue
            reward = row.folded_reward
            into = sums[account.key.tenant, account.key.workflow, policy]
            into[:, position - 1] += (sign, sign * reward, sign * reward * reward)


def _is_within(row: Row[Any], mark: Mark) -> bool:
    """Whether the interaction is one of the past that the mark is of."""
    generation, position = int(row.generation), int(row.position)
    return (
        mark.base_generation <= generation <= mark.head.generation
        and position <= mark.head.position
    )


def _nothing() -> Array:
    return np.zeros((3, LONGEST))


def _by_workflow(keys: Iterable[AccountKey]) -> list[tuple[str, str, list[str]]]:
    grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key in keys:
        grouped[key.tenant, key.workflow].append(key.account_id)
    return [(tenant, workflow, sorted(names)) for (tenant, workflow), names in grouped.items()]


def _from_bytes(stored: bytes) -> Array:
    return np.frombuffer(stored, np.float64).reshape(3, LONGEST)
