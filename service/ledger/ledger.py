"""The ledger, opened: migrated, its durability asserted, one group-committing writer, readers.

Drivers are synchronous and live in threads of their own: a group of writes is then one hop from
the event loop, where an async driver would hop once a statement.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from contract.spec import SpecError, WorkflowSpec
from service.fault_points import reach
from service.ledger.erasure import Erased, Tombstones, erase, starts_at, was_erased
from service.ledger.group_commit import WRITERS, GroupCommit
from service.ledger.past import read_past
from service.ledger.records import (
    Account,
    AccountKey,
    Decision,
    Feedback,
    Head,
    LedgerUnavailableError,
    Past,
    Snapshot,
)
from service.ledger.retention import MOST, cut, drop_unfolded, find_cuts
from service.ledger.rows import find_account, find_decision, find_feedback, to_decision
from service.ledger.settle import (
    ActivateWrite,
    Behind,
    Committed,
    DecisionWrite,
    DefaultWrite,
    FeedbackWrite,
    Recorded,
    ResetWrite,
    SnapshotWrite,
)
from service.ledger.tables import accounts, decisions, defaults_due, ledgers, spec_versions
from service.ledger.version import migrate, one_at_a_time, refuse_other, version_of

R = TypeVar("R")

TIMEOUT_SECONDS = 5.0
"""How long a commit or a read may take before it counts as failed."""
PLANNED_ONCE = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off"
"""Writes look rows up by key, always: one plan a statement, by index, whatever the statistics."""
PLANNED_ANEW = "-c plan_cache_mode=force_custom_plan"
"""A plan made for a read while a table was small must not be kept when it no longer is."""
SQLITE_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "cache_size=-65536",
    # Pages of the log (40 MB) after which it is copied into the file: ids come in no order, so a
    # group of events touches hundreds of pages, and later ones the same again.
    "wal_autocheckpoint=10000",
)


class Ledger:
    """One process's door to the ledger. Open with `Ledger.open`, inside a running event loop."""

    def __init__(
        self,
        engine: Engine,
        writing: Engine,
        ledger_id: str,
        key: bytes,
        timeout_seconds: float,
        observe: Callable[[int, float], None],
    ) -> None:
        self.ledger_id = ledger_id
        """Who this ledger is; another database is another ledger."""
        self._engine = engine
        self._writing = writing
        self._timeout = timeout_seconds
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="ledger-reader")
        self._tombstones = Tombstones(key)
        self._commits = GroupCommit(writing, engine, self._tombstones, timeout_seconds, observe)

    @classmethod
    def open(
        cls,
        url: str,
        observe: Callable[[int, float], None] = lambda *_: None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        *,
        key: bytes = b"",
        migrates: bool = True,
    ) -> Ledger:
        """Migrates the ledger at `url` to this version, if it `migrates`, and opens it. `key` is
        the installation's: what is erased leaves hashes under it.

        Raises LedgerUnavailableError when it cannot be reached, does not promise durability, or is
        of another version.
        """
        try:
            engine = _connect(url, timeout_seconds, PLANNED_ANEW)
            if migrates:
                migrate(engine)
            else:
                with engine.connect() as connection:
                    refuse_other(version_of(connection))
            _assert_durable(engine)
            with engine.begin() as connection:
                ledger_id = _identify(connection)
        except (SQLAlchemyError, OSError) as error:
            raise LedgerUnavailableError(f"the ledger cannot be opened: {error}") from error
        writing = engine
        if engine.dialect.name == "postgresql":
            # Transactions begin and end with the statements that are sent anyway.
            writing = _connect(url, timeout_seconds, PLANNED_ONCE, isolation_level="AUTOCOMMIT")
        return cls(engine, writing, ledger_id, key, timeout_seconds, observe)

    async def read(self, query: Callable[[Connection], R]) -> R:
        """What `query` finds among what is committed. Raises LedgerUnavailableError."""
        loop = asyncio.get_running_loop()
        found = loop.run_in_executor(self._readers, self.read_now, query)
        try:
            return await asyncio.wait_for(found, self._timeout)
        except TimeoutError as error:
            raise LedgerUnavailableError("the ledger did not answer in time") from error

    def read_now(self, query: Callable[[Connection], R]) -> R:
        """`read`, in the calling thread; once more where the server was restarted since the last
        one."""
        try:
            try:
                return self._read_once(query)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            return self._read_once(query)
        except SQLAlchemyError as error:
            raise LedgerUnavailableError(f"not read: {type(error).__name__}") from error

    def _read_once(self, query: Callable[[Connection], R]) -> R:
        options: dict[str, Any] = {"read_only": True}
        if self._engine.dialect.name == "postgresql":  # all of a query's reads are of one moment
            options["isolation_level"] = "REPEATABLE READ"
        with self._engine.connect().execution_options(**options) as connection:
            return query(connection)

    @property
    def shared(self) -> bool:
        """Whether several processes may have it open at once, on several hosts."""
        return self._engine.dialect.name != "sqlite"

    async def alone(self, work: Callable[[Connection], R]) -> R:
        """What `work` does in a transaction of its own; it takes the locks it needs. Raises what it
        raises, and LedgerUnavailableError."""
        return await self._commits.alone(work)

    async def close(self) -> None:
        """Commits what is pending and lets go of the ledger."""
        await self._commits.close()
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()
        self._writing.dispose()

    async def record_decision(self, write: DecisionWrite) -> Committed | Behind:
        """The decision, durable. Raises BodyConflictError and LedgerUnavailableError."""
        outcome: Committed | Behind = await self._commits.submit(write)
        return outcome

    async def record_feedback(self, write: FeedbackWrite) -> Recorded:
        """The feedback, durable. Raises what the write's settling raises, and
        LedgerUnavailableError."""
        recorded: Recorded = await self._commits.submit(write)
        return recorded

    async def record_decisions(
        self, writes: Sequence[DecisionWrite]
    ) -> list[Committed | Behind | Exception]:
        """Each decision, durable, or what it is refused with. Raises LedgerUnavailableError."""
        return await self._commits.submit_all(writes)

    async def record_feedbacks(self, writes: Sequence[FeedbackWrite]) -> list[Recorded | Exception]:
        """Each feedback, durable, in this order, or what it is refused with. Raises
        LedgerUnavailableError."""
        return await self._commits.submit_all(writes)

    def owners(self, writes: Sequence[FeedbackWrite]) -> set[AccountKey]:
        """The accounts that these are about, as far as they are known without looking."""
        return self._commits.owners(write.decision_key for write in writes)

    async def activate(self, write: ActivateWrite) -> Decision:
        """The active decision, durable. Raises what the write's settling raises, and
        LedgerUnavailableError."""
        active: Decision = await self._commits.submit(write)
        return active

    async def reset(self, key: AccountKey, at_us: int) -> Account:
        """The account as it starts anew. Raises AccountUnknownError and LedgerUnavailableError."""
        anew: Account = await self._commits.submit(ResetWrite(key, at_us))
        return anew

    async def erase(self, key: AccountKey, at_us: int) -> Erased:
        """Deletes everything about the account but tombstones. Raises AccountUnknownError and
        LedgerUnavailableError."""
        return await self._commits.alone(lambda connection: erase(
            connection, key, at_us, self._tombstones
        ))  # fmt: skip

    async def change(self, change: Callable[[Connection], R]) -> R:
        """What `change` gives, durable, in a transaction of its own. Raises what it raises, and
        LedgerUnavailableError."""
        return await self._commits.alone(change)

    async def keep_snapshot(self, snapshot: Snapshot) -> bool:
        """Whether the memory was kept: it is not when the past has changed since. Raises
        LedgerUnavailableError."""
        kept: bool = await self._commits.submit(SnapshotWrite(snapshot))
        return kept

    async def clear(self, workflow: str, digests: Sequence[str], before_us: int) -> int:
        """Deletes the workflow's events of before `before_us` that kept memories of all these
        policies have folded, an account a transaction; how many decisions. Raises
        LedgerUnavailableError."""
        cleared, after = 0, None
        while True:
            found = await self.read(
                partial(find_cuts, workflow=workflow, digests=digests, after=after)
            )
            for key, position in found:
                cleared += await self._commits.alone(
                    partial(cut, key=key, position=position, digests=digests, before_us=before_us)
                )
                reach("retention.committed")
            if not found:
                break
            after = found[-1][0]
        while True:
            dropped = await self._commits.alone(
                partial(drop_unfolded, workflow=workflow, before_us=before_us)
            )
            cleared += dropped
            if dropped < MOST:
                return cleared

    async def record_default(self, write: DefaultWrite) -> Recorded | None:
        """The default as folded, durable; None when it is not due. Raises
        LedgerUnavailableError."""
        recorded: Recorded | None = await self._commits.submit(write)
        return recorded

    async def decision(self, tenant: str, decision_id: str) -> Decision | None:
        """The tenant's decision of that id."""
        return await self.read(lambda connection: find_decision(connection, tenant, decision_id))

    async def is_erased(self, tenant: str, decision_id: str) -> bool:
        """Whether a decision of that id was erased with its account."""
        digest = self._tombstones("decision", tenant, decision_id)
        return await self.read(lambda connection: was_erased(connection, digest))

    async def feedback(self, tenant: str, decision_id: str) -> list[Feedback]:
        """Everything that came of a decision, in order of arrival."""
        return await self.read(
            lambda connection: find_feedback(connection, [(tenant, decision_id)])
        )

    async def account(self, key: AccountKey) -> Account | None:
        """The account as of its head."""
        return await self.read(lambda connection: find_account(connection, key))

    async def past(
        self,
        key: AccountKey,
        after: Head | None,
        digest: str | None = None,
        as_of: Head | None = None,
        below: int | None = None,
    ) -> Past:
        """A page of the account's past; see `service.ledger.past.read_past`."""

        def query(connection: Connection) -> Past:
            past = read_past(connection, key, after, digest, as_of, below)
            if past.head != Head() or as_of is not None:
                return past
            # Nobody yet, or again: one that was erased begins above what it was.
            begins = starts_at(connection, self._tombstones("account", *key))
            return replace(past, head=begins, start=begins, end=begins)

        return await self.read(query)

    async def defaults_due(self, now_us: int, limit: int) -> list[Decision]:
        """Decisions whose window has closed and whose default reward is not folded yet."""
        due = defaults_due.c
        of_decision = (decisions.c.tenant == due.tenant) & (
            decisions.c.decision_id == due.decision_id
        )
        query = (
            select(decisions)
            .join(defaults_due, of_decision)
            .where(due.due_at_us < now_us)
            .order_by(due.due_at_us)
            .limit(limit)
        )
        return await self.read(
            lambda connection: [to_decision(row) for row in connection.execute(query)]
        )

    async def heads_changed(self, since_us: int, limit: int) -> list[tuple[AccountKey, Head, int]]:
        """Accounts that changed at or after `since_us`, oldest change first, with that time."""
        query = (
            select(accounts)
            .where(
                accounts.c.updated_at_us >= since_us,
                (accounts.c.position > 0) | (accounts.c.generation > 0),
            )
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

    def changed_last_us(self) -> int | None:
        """When the head of any account last moved; None: never. Blocks."""
        newest = select(func.max(accounts.c.updated_at_us))
        found: int | None = self.read_now(lambda connection: connection.scalar(newest))
        return found

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
        memories are stored by action, so the list may only grow at its end. Raises
        LedgerUnavailableError.
        """
        try:
            with self._engine.begin() as connection:
                one_at_a_time(connection)
                return _register_spec(connection, spec, now_us)
        except SQLAlchemyError as error:
            raise LedgerUnavailableError(f"not committed: {type(error).__name__}") from error

    def spec_version(self, workflow: str, version: int) -> WorkflowSpec:
        """The spec that an event was made under. Blocks."""
        return self.spec_versions(workflow)[version]

    def spec_versions(self, workflow: str) -> dict[int, WorkflowSpec]:
        """Every spec the workflow has had, by version. Blocks."""
        columns = spec_versions.c
        query = select(columns.version, columns.body).where(columns.workflow == workflow)
        rows = self.read_now(lambda connection: connection.execute(query).all())
        return {row.version: WorkflowSpec.model_validate_json(row.body) for row in rows}


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


def _connect(url: str, timeout_seconds: float, planning: str, **options: Any) -> Engine:
    """Connections to the database; `planning` is how PostgreSQL plans on them."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        milliseconds = round(timeout_seconds * 1_000)
        return create_engine(
            parsed,
            pool_size=WRITERS + 2,
            max_overflow=2,
            hide_parameters=True,
            **options,
            connect_args={
                "connect_timeout": math.ceil(timeout_seconds),
                "tcp_user_timeout": milliseconds,
                "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds} "
                f"{planning}",
            },
        )
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        parsed,
        hide_parameters=True,
        connect_args={"timeout": timeout_seconds, "check_same_thread": False},
    )

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


def migrate_ledger(url: str) -> str | None:
    """Brings the ledger at `url` to this release's version; the one that it was of. Raises
    LedgerUnavailableError."""
    try:
        engine = _connect(url, TIMEOUT_SECONDS, PLANNED_ANEW)
        try:
            return migrate(engine)
        finally:
            engine.dispose()
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise LedgerUnavailableError(f"the ledger cannot be migrated: {cause}") from error


def _identify(connection: Connection) -> str:
    """The ledger's id, drawn when it is first opened."""
    one_at_a_time(connection)
    known = connection.scalar(select(ledgers.c.ledger_id))
    if known is None:
        known = secrets.token_hex(16)
        connection.execute(insert(ledgers).values(ledger_id=known))
    return str(known)


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
