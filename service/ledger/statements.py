"""SQL of the hot path, compiled once a dialect: a group of writes must not compile any.

Statements are SQLAlchemy's, run as driver SQL with plain dictionaries: what the dialects differ in
is only how a list of values is handed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Connection,
    Executable,
    Row,
    String,
    Table,
    bindparam,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ClauseElement

from service.ledger.tables import accounts, decisions, feedback, tombstones

SQLITE = sqlite.dialect(paramstyle="named")
POSTGRESQL = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]

Rows = Sequence[Row[Any]]
ReadBuilder = Callable[[bool], Executable]
"""Of a statement that takes a list as an array, or else as JSON text."""


def read(table: Table, by: str, *columns: str, lock: bool = False) -> ReadBuilder:
    """Rows whose column `by` is among `ids`, which come sorted, and whose `columns` are equal to
    the values of these names; in the order of `ids`."""

    def build(lists: bool) -> Executable:
        equal = [table.c[one] == bindparam(one, type_=String) for one in columns]
        if not lists:
            listed = func.json_each(bindparam("ids", type_=String)).table_valued("value")
            return select(table).where(*equal, table.c[by].in_(select(listed.c.value)))
        # An index lookup an id, whatever the planner believes of a table it has not analysed yet.
        key = " AND ".join([*(f"{one} = :{one}" for one in columns), f"{by} = asked.id"])
        return text(
            f"SELECT found.* FROM unnest(CAST(:ids AS varchar[])) AS asked (id) CROSS JOIN LATERAL "
            f"(SELECT * FROM {table.name} WHERE {key} OFFSET 0{' FOR UPDATE' * lock}) AS found"
        )

    return build


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
_READS: Mapping[str, ReadBuilder] = {
    "read_decisions": read(decisions, "decision_id", "tenant"),
    "lock_accounts": read(accounts, "account_id", "tenant", "workflow", lock=True),
    "read_feedback": read(feedback, "decision_id", "tenant"),
    "read_tombstones": read(tombstones, "digest"),
}


@lru_cache(maxsize=64)
def sql_of_row(name: str) -> str:
    """The write of this name for one row, as SQLite's driver takes it."""
    kind, table, names = _WRITES[name]
    statement = add(table) if kind == "add" else set_by_key(table, *names)
    return str(statement.compile(dialect=SQLITE))


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
        connection.exec_driver_sql(sql_of_row(name), rows)


@lru_cache(maxsize=64)
def _read(name: str, lists: bool) -> Executable:
    """The read of this name: one object, so that SQLAlchemy knows it again."""
    return _READS[name](lists)


def fetch(connection: Connection, name: str, ids: Sequence[str], **values: str) -> Rows:
    """The rows that the statement of this name finds for `ids`."""
    lists = connection.dialect.name == "postgresql"
    listed = list(ids) if lists else json.dumps(list(ids))
    return connection.execute(_read(name, lists), {"ids": listed, **values}).all()
