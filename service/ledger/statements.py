"""SQL of the hot path, compiled once a dialect: a group of writes must not compile any.

Statements are SQLAlchemy's, run as driver SQL with plain dictionaries: what the dialects differ in
is only how a list of values is handed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Row,
    String,
    Table,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ClauseElement

from service.ledger.tables import accounts, decisions, feedback, tombstones

SQLITE = sqlite.dialect(paramstyle="named")
POSTGRESQL = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]

Rows = Sequence[Row[Any]]

ARRIVAL = (
    feedback.c.received_at_us,
    feedback.c.kind,
    feedback.c.generation.is_(None),
    feedback.c.generation,
    feedback.c.position,
    feedback.c.feedback_id,
)
"""The order of one decision's feedback, as near as clocks tell it: a default before what came on
its heels, what changed the past before what was only kept."""


def among(column: Column[Any], name: str, *, lists: bool) -> ColumnElement[bool]:
    """Whether the column's value is in the list bound to `name`: an array where the dialect has
    such, JSON text elsewhere."""
    if lists:
        return column == func.any(bindparam(name, type_=ARRAY(String)))
    listed = func.json_each(bindparam(name, type_=String)).table_valued("value")
    return column.in_(select(listed.c.value))


def read_decisions(lists: bool) -> ClauseElement:
    """The tenant's decisions of these ids."""
    found = among(decisions.c.decision_id, "ids", lists=lists)
    return select(decisions).where(decisions.c.tenant == bindparam("tenant"), found)


def lock_accounts(lists: bool) -> ClauseElement:
    """The workflow's accounts of these names, locked in key order."""
    return (
        select(accounts)
        .where(
            accounts.c.tenant == bindparam("tenant"),
            accounts.c.workflow == bindparam("workflow"),
            among(accounts.c.account_id, "ids", lists=lists),
        )
        .order_by(accounts.c.account_id)
        .with_for_update()
    )


def read_feedback(lists: bool) -> ClauseElement:
    """What came of the tenant's decisions of these ids, in order of arrival."""
    found = among(feedback.c.decision_id, "ids", lists=lists)
    return (
        select(feedback).where(feedback.c.tenant == bindparam("tenant"), found).order_by(*ARRIVAL)
    )


def read_tombstones(lists: bool) -> ClauseElement:
    """The tombstones of these digests."""
    return select(tombstones).where(among(tombstones.c.digest, "ids", lists=lists))


def add(table: Table) -> ClauseElement:
    """One row with every column given."""
    return insert(table).values({one.name: bindparam(one.name) for one in table.columns})


def set_by_key(table: Table, *names: str) -> ClauseElement:
    """New values, each under its column's name, for the row of this primary key."""
    key = [one == bindparam(f"the_{one.name}") for one in table.primary_key.columns]
    return update(table).where(*key).values({name: bindparam(name) for name in names})


COUNTS = ("decisions", "used_position", "unaware_decisions")
HEAD = (
    "generation",
    "position",
    "phase",
    "adapted_at",
    "recent_rewards",
    "updated_at_us",
    "base_generation",
    "kept_above",
)
_WRITES: Mapping[str, tuple[str, Table, tuple[str, ...]]] = {
    "add_accounts": ("add", accounts, ()),
    "add_decisions": ("add", decisions, ()),
    "add_feedback": ("add", feedback, ()),
    "add_tombstones": ("add", tombstones, ()),
    "count_accounts": ("set", accounts, COUNTS),
    "move_accounts": ("set", accounts, (*COUNTS, *HEAD)),
    "fold_decisions": ("set", decisions, ("folded", "default_due_at_us")),
    "activate_decisions": (
        "set",
        decisions,
        ("activated_at_us", "expires_at_us", "default_due_at_us"),
    ),
}
"""What each adds to or sets in which table."""
_READS: Mapping[str, Any] = {
    "read_decisions": read_decisions,
    "lock_accounts": lock_accounts,
    "read_feedback": read_feedback,
    "read_tombstones": read_tombstones,
}


@lru_cache(maxsize=64)
def sql(name: str, dialect: str) -> str:
    """The statement of this name as the dialect's driver takes it."""
    lists = dialect == "postgresql"
    statement: ClauseElement
    if name in _READS:
        statement = _READS[name](lists)
    else:
        kind, table, names = _WRITES[name]
        statement = add(table) if kind == "add" else set_by_key(table, *names)
    return str(statement.compile(dialect=POSTGRESQL if lists else SQLITE))


@lru_cache(maxsize=64)
def sql_of_rows(name: str) -> str:
    """The statement of this name for all rows at once, which are one JSON text: PostgreSQL spends
    more on a statement a row than on the rows."""
    kind, table, names = _WRITES[name]
    if kind == "add":
        columns = ", ".join(one.name for one in table.columns)
        return (
            f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM "
            f"json_populate_recordset(NULL::{table.name}, %(rows)s::json)"
        )
    key = [one.name for one in table.primary_key.columns]
    types = [
        f"{prefix}{one} {table.c[one].type.compile(POSTGRESQL)}"
        for prefix, some in (("the_", key), ("", names))
        for one in some
    ]
    return (
        f"UPDATE {table.name} SET {', '.join(f'{one} = given.{one}' for one in names)} "
        f"FROM json_to_recordset(%(rows)s::json) AS given ({', '.join(types)}) "
        f"WHERE {' AND '.join(f'{table.name}.{one} = given.the_{one}' for one in key)}"
    )


def run(connection: Connection, name: str, rows: list[dict[str, Any]]) -> None:
    """Runs the statement of this name for each of `rows`."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(sql_of_rows(name), {"rows": json.dumps(rows)})
    else:
        connection.exec_driver_sql(sql(name, connection.dialect.name), rows)


def fetch(connection: Connection, name: str, ids: Sequence[str], **values: str) -> Rows:
    """The rows that the statement of this name finds for `ids`."""
    dialect = connection.dialect.name
    listed = list(ids) if dialect == "postgresql" else json.dumps(list(ids))
    result = connection.exec_driver_sql(sql(name, dialect), {"ids": listed, **values})
    return result.all()
