"""The ledger, opened: migrated, its durability asserted, one group-committing writer, readers.

Drivers are synchronous and live in threads of their own: a group of writes is then one hop from
the event loop, where an async driver would hop once a statement.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, func, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from contract.spec import SpecError, WorkflowSpec
from service.ledger.group_commit import GroupCommit
from service.ledger.records import (
    Account,
    AccountKey,
    Decision,
    Feedback,
    Head,
    Interaction,
    LedgerUnavailableError,
)
from service.ledger.rows import find_account, find_decision, find_feedback
from service.ledger.settle import (
    Behind,
    Committed,
    DecisionWrite,
    DefaultWrite,
    FeedbackWrite,
    Recorded,
)
from service.ledger.tables import accounts, decisions, feedback, spec_versions

R = TypeVar("R")

MIGRATIONS = Path(__file__).parent / "migrations"
SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-65536")


class Ledger:
    """One process's door to the ledger. Open with `Ledger.open`, inside a running event loop."""

    def __init__(self, engine: Engine, observe: Callable[[int, float], None]) -> None:
        self._engine = engine
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="ledger-reader")
        self._commits = GroupCommit(engine, observe)

    @classmethod
    def open(cls, url: str, observe: Callable[[int, float], None] = lambda *_: None) -> Ledger:
        """Migrates the ledger at `url` to this version and opens it.

        Raises LedgerUnavailableError when it cannot be reached or does not promise durability.
        """
        try:
            engine = _connect(url)
            _migrate(engine)
            _assert_durable(engine)
        except (SQLAlchemyError, OSError) as error:
            raise LedgerUnavailableError(f"the ledger cannot be opened: {error}") from error
        return cls(engine, observe)

    async def record_decision(self, write: DecisionWrite) -> Committed | Behind:
        """The decision, durable. Raises BodyConflictError and LedgerUnavailableError."""
        outcome: Committed | Behind = await self._commits.submit(write)
        return outcome

    async def record_feedback(self, write: FeedbackWrite) -> Recorded:
        """The feedback, durable. Raises what the write's settling raises, and
        LedgerUnavailableError."""
        recorded: Recorded = await self._commits.submit(write)
        return recorded

    async def record_default(self, write: DefaultWrite) -> Recorded | None:
        """The default as folded, durable; None when it is not due. Raises
        LedgerUnavailableError."""
        recorded: Recorded | None = await self._commits.submit(write)
        return recorded

    async def read(self, query: Callable[[Connection], R]) -> R:
        """What `query` finds among what is committed. Raises LedgerUnavailableError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self.read_now, query)

    def read_now(self, query: Callable[[Connection], R]) -> R:
        """`read`, in the calling thread."""
        try:
            with self._engine.connect().execution_options(read_only=True) as connection:
                return query(connection)
        except SQLAlchemyError as error:
            raise LedgerUnavailableError(f"the ledger cannot be read: {error}") from error

    async def close(self) -> None:
        """Commits what is pending and lets go of the ledger."""
        await self._commits.close()
        self._readers.shutdown()
        self._engine.dispose()

    async def decision(self, tenant: str, decision_id: str) -> Decision | None:
        """The tenant's decision of that id."""
        return await self.read(lambda connection: find_decision(connection, tenant, decision_id))

    async def feedback(self, tenant: str, decision_id: str) -> list[Feedback]:
        """Everything that came of a decision, in order of arrival."""
        return await self.read(lambda connection: find_feedback(connection, tenant, decision_id))

    async def account(self, key: AccountKey) -> Account | None:
        """The account as of its head."""
        return await self.read(lambda connection: find_account(connection, key))

    async def past(self, key: AccountKey, after: Head | None) -> tuple[Head, list[Interaction]]:
        """The account's head and its interactions above `after`, in order of position.

        All of them when `after` is None or of another generation, or above the head: such a memory
        is no prefix of this past.
        """
        return await self.read(lambda connection: _past(connection, key, after))

    async def defaults_due(self, now_us: int, limit: int) -> list[Decision]:
        """Decisions whose window has closed and whose default reward is not folded yet."""
        query = (
            select(decisions.c.tenant, decisions.c.decision_id)
            .where(decisions.c.default_due_at_us < now_us)
            .order_by(decisions.c.default_due_at_us)
            .limit(limit)
        )

        def find(connection: Connection) -> list[Decision]:
            found = (find_decision(connection, *row) for row in connection.execute(query).all())
            return [decision for decision in found if decision is not None]

        return await self.read(find)

    async def heads_changed(self, since_us: int, limit: int) -> list[tuple[AccountKey, Head, int]]:
        """Accounts that changed at or after `since_us`, oldest change first, with that time."""
        query = (
            select(accounts)
            .where(accounts.c.updated_at_us >= since_us, accounts.c.position > 0)
            .order_by(accounts.c.updated_at_us)
            .limit(limit)
        )
        rows: Sequence[Any] = await self.read(lambda connection: connection.execute(query).all())
        return [
            (
                AccountKey(row.tenant, row.workflow, row.account_id),
                Head(row.generation, row.position),
                row.updated_at_us,
            )
            for row in rows
        ]

    async def phases(self) -> dict[tuple[str, str], int]:
        """How many accounts there are by (workflow, phase)."""
        columns = accounts.c
        query = select(columns.workflow, columns.phase, func.count()).group_by(
            columns.workflow, columns.phase
        )
        rows = await self.read(lambda connection: connection.execute(query).all())
        return {(workflow, phase): count for workflow, phase, count in rows}

    def register_spec(self, spec: WorkflowSpec, now_us: int) -> int:
        """The version of this spec, recorded on first sight. Blocks; called at start.

        Raises SpecError when an action of an earlier version was removed or moved: rows of
        memories are stored by action, so the list may only grow at its end.
        """
        with self._engine.begin() as connection:
            return _register_spec(connection, spec, now_us)

    def spec_version(self, workflow: str, version: int) -> WorkflowSpec:
        """The spec that an event was made under. Blocks."""
        query = select(spec_versions.c.body).where(
            spec_versions.c.workflow == workflow, spec_versions.c.version == version
        )
        body = self.read_now(lambda connection: connection.execute(query).scalar_one())
        return WorkflowSpec.model_validate_json(body)


def _past(
    connection: Connection, key: AccountKey, after: Head | None
) -> tuple[Head, list[Interaction]]:
    account = find_account(connection, key)
    head = account.head if account else Head()
    from_position = 0
    if after is not None and after.generation == head.generation and after <= head:
        from_position = after.position
    query = (
        select(
            feedback.c.position,
            feedback.c.reward,
            feedback.c.episode_end,
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
            feedback.c.tenant == key.tenant,
            feedback.c.workflow == key.workflow,
            feedback.c.account_id == key.account_id,
            feedback.c.generation == head.generation,
            feedback.c.position > from_position,
            feedback.c.position <= head.position,
        )
        .order_by(feedback.c.position)
    )
    return head, [
        Interaction(
            row.position,
            row.spec_version,
            json.loads(row.context),
            row.action,
            row.reward,
            row.episode_end,
        )
        for row in connection.execute(query)
    ]


def _register_spec(connection: Connection, spec: WorkflowSpec, now_us: int) -> int:
    columns = spec_versions.c
    stored = connection.execute(
        select(columns.version, columns.sha256, columns.body)
        .where(columns.workflow == spec.workflow)
        .order_by(columns.version)
    ).all()
    for row in stored:
        if row.sha256 == spec.sha256:
            return int(row.version)
    if stored:
        before = WorkflowSpec.model_validate_json(stored[-1].body).action_ids
        if spec.action_ids[: len(before)] != before:
            raise SpecError(
                f"{spec.workflow}: actions: expected the list of version {stored[-1].version}, "
                f"{list(before)}, with new ones at its end, got {list(spec.action_ids)}"
            )
    version = len(stored) + 1
    connection.execute(
        insert(spec_versions).values(
            workflow=spec.workflow,
            version=version,
            sha256=spec.sha256,
            body=spec.canonical,
            created_at_us=now_us,
        )
    )
    return version


def _connect(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_size=4, max_overflow=2, pool_pre_ping=True)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": 10.0, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the dialect's own BEGIN comes too late for us
        for pragma in SQLITE_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("read_only") is None
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _assert_durable(engine: Engine) -> None:
    """Raises LedgerUnavailableError unless a commit means that the bytes are on the disk."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            promises = {
                "journal_mode": ("wal", connection.scalar(text("PRAGMA journal_mode"))),
                "synchronous": (2, connection.scalar(text("PRAGMA synchronous"))),
            }
        else:
            promises = {
                name: ("on", connection.scalar(text(f"SHOW {name}")))
                for name in ("fsync", "synchronous_commit", "full_page_writes")
            }
    for name, (wanted, found) in promises.items():
        if found != wanted:
            raise LedgerUnavailableError(f"{name}: expected {wanted}, got {found}: not durable")
