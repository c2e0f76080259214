"""SQL of the hot path, compiled once a dialect and given to the driver as it is.

Statements are SQLAlchemy's, or plain SQL where the dialects differ: in how a list of values is
handed over, and in that PostgreSQL takes many statements in one round trip. Errors are
SQLAlchemy's.
"""

from __future__ import annotations

import json
from collections import defaultdict, namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
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
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement, delete

from service.ledger.records import AccountKey
from service.ledger.tables import (
    accounts,
    decisions,
    defaults_due,
    feedback,
    tallies,
    tombstones,
)

SQLITE = sqlite.dialect(paramstyle="named")
POSTGRESQL = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]

Rows = Sequence[Any]
"""Named tuples of a table's columns."""
ReadBuilder = Callable[[bool], ClauseElement | None]
"""Of a statement that takes a list as an array, or else as JSON text; None where the database has
no use for it."""


class Ask(NamedTuple):
    """A read by name, for these ids, which come sorted, under these values."""

    name: str
    ids: Sequence[str] = ()
    values: Mapping[str, str] = {}


def asks_of_accounts(name: str, keys: Iterable[AccountKey]) -> list[Ask]:
    """The read of this name for these accounts, in key order."""
    names: dict[tuple[str, str], list[str]] = defaultdict(list)
    for tenant, workflow, account_id in sorted(keys):
        names[tenant, workflow].append(account_id)
    return [
        Ask(name, ids, {"tenant": tenant, "workflow": workflow})
        for (tenant, workflow), ids in names.items()
    ]


def read(table: Table, by: str, *columns: str, lock: bool = False) -> ReadBuilder:
    """Rows whose column `by` is among the ids, and whose `columns` are equal to the values of these
    names; in the order of the ids where they are locked."""

    def build(lists: bool) -> ClauseElement:
        equal = [table.c[one] == bindparam(one, type_=String) for one in columns]
        if not lists:
            listed = func.json_each(bindparam("ids", type_=String)).table_valued("value")
            return select(table).where(*equal, table.c[by].in_(select(listed.c.value)))
        # An index lookup an id, whatever the planner believes of a table it has not analysed yet.
        key = " AND ".join([*(f"{one} = :{one}" for one in columns), f"{by} = asked.id"])
        found = ", ".join(f"found.{one.name}" for one in table.columns)
        return text(
            f"SELECT {found} FROM unnest(CAST(:ids AS varchar[])) AS asked (id) CROSS JOIN LATERAL "
            f"(SELECT * FROM {table.name} WHERE {key} OFFSET 0{' FOR UPDATE' * lock}) AS found"
        )

    return build


def lock_names(exclusive: bool) -> str:
    """Locks accounts by name until the transaction ends, on PostgreSQL, without writing anything:
    whoever only adds to them shares, whoever deletes them must not."""
    function = f"pg_advisory_xact_lock{'' if exclusive else '_shared'}"
    return (
        f"SELECT {function}(hashtextextended(concat_ws(chr(31), CAST(:tenant AS varchar), "
        "CAST(:workflow AS varchar), asked.id), 0)) "
        "FROM unnest(CAST(:ids AS varchar[])) AS asked (id)"
    )


def claim(table: Table, lists: bool) -> str:
    """The rows of these ids, locked, each made where there is none yet."""
    listed = "unnest(CAST(:ids AS varchar[])) AS asked (id)" if lists else "json_each(:ids)"
    return (
        f"INSERT INTO {table.name} (tenant, workflow, account_id, body) "
        f"SELECT :tenant, :workflow, {'asked.id' if lists else 'value'}, '{{}}' FROM {listed} "
        "WHERE true ON CONFLICT (tenant, workflow, account_id) DO UPDATE SET body = "
        f"{table.name}.body RETURNING {', '.join(names_of(table))}"
    )


def add(table: Table) -> ClauseElement:
    """One row with every column given."""
    return insert(table).values({one.name: bindparam(one.name) for one in table.columns})


def names_of(table: Table) -> list[str]:
    """Of its columns."""
    return [one.name for one in table.columns]


def put(table: Table) -> ClauseElement:
    """One row with every column given, over the one of its primary key where there is one."""
    named: dict[str, Any] = {name: bindparam(name) for name in names_of(table)}
    return insert(table).prefix_with("OR REPLACE").values(named)


def drop(table: Table) -> ClauseElement:
    """The row of this primary key goes."""
    return delete(table).where(*(one == bindparam(one.name) for one in table.primary_key.columns))


def set_by_key(table: Table, *names: str) -> ClauseElement:
    """New values, each under its column's name, for the row of this primary key."""
    key = [one == bindparam(f"the_{one.name}") for one in table.primary_key.columns]
    return update(table).where(*key).values({name: bindparam(name) for name in names})


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
    "add_due": ("add", defaults_due, ()),
    "drop_due": ("drop", defaults_due, ()),
    "add_feedback": ("add", feedback, ()),
    "add_tombstones": ("add", tombstones, ()),
    "move_accounts": ("set", accounts, HEAD),
    "put_tallies": ("put", tallies, ()),
    "activate_decisions": ("set", decisions, ("activated_at_us", "expires_at_us")),
}
"""What each adds to, drops from or sets in which table."""
_READS: Mapping[str, tuple[Table | None, ReadBuilder]] = {
    # The driver's own BEGIN would be waited for.
    "begin": (None, lambda lists: text("BEGIN") if lists else None),
    "hold_accounts": (None, lambda lists: text(lock_names(exclusive=False)) if lists else None),
    "read_accounts": (accounts, read(accounts, "account_id", "tenant", "workflow")),
    "lock_accounts": (accounts, read(accounts, "account_id", "tenant", "workflow", lock=True)),
    "read_decisions": (decisions, read(decisions, "decision_id", "tenant")),
    "read_feedback": (feedback, read(feedback, "decision_id", "tenant")),
    "read_tombstones": (tombstones, read(tombstones, "digest")),
    "read_tallies": (tallies, read(tallies, "account_id", "tenant", "workflow")),
    "claim_tallies": (tallies, lambda lists: text(claim(tallies, lists))),
    "any_tombstone": (tombstones, lambda lists: text(f"{select(tombstones)} LIMIT 1")),
}
"""What each reads, and of which table its rows are."""


@lru_cache(maxsize=64)
def sql_of_row(name: str) -> str:
    """The write of this name for one row, as SQLite's driver takes it."""
    kind, table, names = _WRITES[name]
    statement = {"add": add, "put": put, "drop": drop, "set": set_by_key}[kind](table, *names)
    return str(statement.compile(dialect=SQLITE))


@lru_cache(maxsize=64)
def sql_of_rows(name: str) -> str:
    """The statement of this name for all rows at once, which are one JSON text: PostgreSQL spends
    more on a statement a row than on the rows."""
    kind, table, names = _WRITES[name]
    key = [one.name for one in table.primary_key.columns]
    if kind in ("add", "put"):
        columns = ", ".join(names_of(table))
        others = ", ".join(f"{one} = excluded.{one}" for one in names_of(table) if one not in key)
        over = f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {others}"
        return (
            f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM "
            f"json_populate_recordset(NULL::{table.name}, %(rows)s::json)"
        ) + over * (kind == "put")
    prefix = "the_" if kind == "set" else ""
    types = [
        f"{before}{one} {table.c[one].type.compile(POSTGRESQL)}"
        for before, some in ((prefix, key), ("", names))
        for one in some
    ]
    given = f"json_to_recordset(%(rows)s::json) AS given ({', '.join(types)})"
    same = " AND ".join(f"{table.name}.{one} = given.{prefix}{one}" for one in key)
    if kind == "drop":
        return f"DELETE FROM {table.name} USING {given} WHERE {same}"
    return (
        f"UPDATE {table.name} SET {', '.join(f'{one} = given.{one}' for one in names)} "
        f"FROM {given} WHERE {same}"
    )


@lru_cache(maxsize=64)
def sql_of_read(name: str, lists: bool) -> str | None:
    """The read of this name as a driver takes it."""
    statement = _READS[name][1](lists)
    return (
        None
        if statement is None
        else str(statement.compile(dialect=POSTGRESQL if lists else SQLITE))
    )


@lru_cache(maxsize=64)
def _row_of(name: str) -> Callable[[Sequence[Any]], Any]:
    """Makes a row of this read's table out of a driver's."""
    table = _READS[name][0]
    if table is None:
        return tuple
    row: Any = namedtuple(table.name, table.columns.keys())  # type: ignore[misc]
    make: Callable[[Sequence[Any]], Any] = row._make
    return make


def run(connection: Connection, name: str, rows: list[dict[str, Any]]) -> None:
    """Runs the statement of this name for each of `rows`."""
    with _driver(connection) as driver:
        if connection.dialect.name == "postgresql":
            driver.execute(sql_of_rows(name), {"rows": json.dumps(rows)})
        else:
            driver.executemany(sql_of_row(name), rows)


def fetch(connection: Connection, asks: Sequence[Ask]) -> list[Rows]:
    """The rows that each asks for; all of them in one round trip."""
    lists = connection.dialect.name == "postgresql"
    if not connection.in_transaction():
        connection.begin()
    with _driver(connection) as driver:
        cursors = []
        with _pipeline(connection, driver):
            for ask in asks:
                sql = sql_of_read(ask.name, lists)
                ids = list(ask.ids) if lists else json.dumps(ask.ids)
                values = {"ids": ids, **ask.values}
                cursors.append(None if sql is None else driver.execute(sql, values))
        return [
            [] if not (cursor and cursor.description) else list(map(_row_of(ask.name), cursor))
            for ask, cursor in zip(asks, cursors, strict=True)
        ]


@contextmanager
def committed(connection: Connection) -> Iterator[None]:
    """Commits what is run within; on PostgreSQL all of it, the commit as well, in one round trip.
    Nothing within may look at what a statement answers."""
    with _driver(connection) as driver, _pipeline(connection, driver):
        yield
        if connection.dialect.name == "postgresql":
            driver.execute("COMMIT")
    connection.commit()


def _pipeline(connection: Connection, driver: Any) -> AbstractContextManager[Any]:
    """Within it, PostgreSQL's driver sends statements without waiting for their answers."""
    if connection.dialect.name == "postgresql":
        pipeline: AbstractContextManager[Any] = driver.pipeline()
        return pipeline
    return nullcontext()


@contextmanager
def _driver(connection: Connection) -> Iterator[Any]:
    """The driver's own connection; what it raises becomes SQLAlchemy's."""
    dialect = connection.dialect
    errors = dialect.loaded_dbapi.Error
    driver = connection.connection.dbapi_connection
    try:
        yield driver
    except errors as error:
        lost = dialect.is_disconnect(error, driver, None)
        if lost:
            connection.invalidate(error)
            connection.engine.dispose()  # those beside it are lost as well
        raise DBAPIError.instance(
            None, None, error, errors, connection_invalidated=lost, dialect=dialect
        ) from error
