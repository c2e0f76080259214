"""A ledger opened for reading alone, beside whoever serves from it: nothing of it is changed."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from contract.spec import WorkflowSpec
from service.ledger.ledger import Ledger
from service.ledger.records import LedgerUnavailableError
from service.ledger.tables import ledgers
from service.ledger.version import refuse_other, version_of

TIMEOUT_SECONDS = 60.0
"""How long a read may take: no customer waits for it."""


class ReadLedger(Ledger):
    """A Ledger that no write can reach: the database itself refuses them."""

    def register_spec(self, spec: WorkflowSpec, now_us: int) -> int:
        """The version of this spec, or the one it would get: nothing is registered."""
        known = self.spec_versions(spec.workflow)
        same = (version for version, one in known.items() if one.sha256 == spec.sha256)
        return next(same, len(known) + 1)


def open_to_read(url: str) -> ReadLedger:
    """The ledger at `url`. Raises LedgerUnavailableError when there is none, or when it is not of
    this version."""
    try:
        engine = _connect(make_url(url))
        with engine.connect() as connection:
            refuse_other(version_of(connection))
            ledger_id = connection.scalar(select(ledgers.c.ledger_id))
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise LedgerUnavailableError(f"the ledger cannot be opened: {cause}") from error
    if ledger_id is None:
        raise LedgerUnavailableError("the ledger cannot be opened: no service ever did")
    return ReadLedger(engine, engine, str(ledger_id), b"", TIMEOUT_SECONDS, lambda *_: None)


def read_version(url: str) -> str | None:
    """The version of the ledger at `url`; None: it is empty. Raises LedgerUnavailableError."""
    try:
        engine = _connect(make_url(url))
        try:
            with engine.connect() as connection:
                return version_of(connection)
        finally:
            engine.dispose()
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise LedgerUnavailableError(f"the ledger cannot be opened: {cause}") from error


def _connect(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        milliseconds = round(TIMEOUT_SECONDS * 1_000)
        options = f"-c statement_timeout={milliseconds} -c default_transaction_read_only=on"
        timeout = math.ceil(TIMEOUT_SECONDS)
        return create_engine(
            url,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"connect_timeout": timeout, "options": options},
        )
    path = Path(url.database or "").absolute()

    def connect() -> sqlite3.Connection:
        """Read-only to the operating system too; SQLite's log lets it read while others write."""
        return sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro",
            uri=True,
            timeout=TIMEOUT_SECONDS,
            check_same_thread=False,
            isolation_level=None,
        )

    engine = create_engine("sqlite://", creator=connect, hide_parameters=True)

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine
