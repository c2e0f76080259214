"""Which version a ledger is of, which one this release works on, and the way from one to the other.

Alembic's revisions, one after another. Whoever migrates holds a lock meanwhile, so that replicas
and jobs that start at once do it once; a migration is one transaction, and so all of it or nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from service.ledger.records import LedgerUnavailableError

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x41434C4D
_LOCK_SECONDS = 5
"""How long a migration waits for a table that somebody uses, before it gives way."""

Standing = Literal["current", "older", "newer"]


class LedgerVersionError(LedgerUnavailableError):
    """The ledger is of a version that this release does not work on."""


def newest() -> str:
    """The version that this release works on."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def version_of(connection: Connection) -> str | None:
    """The ledger's version; None: it is empty."""
    return MigrationContext.configure(connection).get_current_revision()


def standing_of(version: str | None) -> Standing:
    """How a ledger of that version stands to this release."""
    revisions = [one.revision for one in ScriptDirectory.from_config(_config()).walk_revisions()]
    if version == revisions[0]:
        return "current"
    return "older" if version is None or version in revisions else "newer"


def refuse_other(version: str | None) -> None:
    """Raises LedgerVersionError unless this release works on a ledger of that version."""
    if standing_of(version) == "newer":
        raise LedgerVersionError(
            f"the ledger is of version {version}, which this release does not know ({newest()} is "
            "its newest): expected the release that migrated it, or a later one"
        )
    if standing_of(version) == "older":
        raise LedgerVersionError(
            f"the ledger is of version {version}, expected {newest()}: `acclimate migrate`, or a "
            "service of this release with ACCLIMATE_MIGRATIONS=start, migrates it"
        )


def migrate(engine: Engine) -> str | None:
    """Brings the ledger to this release's version; the one that it was of.

    Raises LedgerVersionError where that is newer, and what the database raises.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # a large ledger takes what it takes
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = 0"))
        one_at_a_time(connection)
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
        before = version_of(connection)
        if standing_of(before) == "newer":
            refuse_other(before)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before


def one_at_a_time(connection: Connection) -> None:
    """Until this transaction ends, no other replica is past this point. SQLite writers already
    are one at a time."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config
