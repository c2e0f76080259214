"""A ledger filled by the first release goes on under this one: nothing lost, nothing changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner

from acclimate import main
from contract.adaptation import AccountAdaptation, observe
from contract.spec import parse_workflow
from service.ledger.ledger import SQLITE_PRAGMAS, Ledger, migrate_ledger
from service.ledger.records import AccountKey, Head
from service.ledger.version import MIGRATIONS, newest
from service.settings import Settings
from tests.processes import wait_until
from tests.service.conftest import CONTEXT, WORKFLOW, Open, Time
from tests.service.pasts import agree, declare, past_of
from tests.service_process import ServiceProcess

SPEC = parse_workflow(WORKFLOW)
TENANTS = ("default", "theirs")
ACCOUNTS = ("a", "b")
OPEN_UNTIL = Time().now + 50_000_000
"""Every window that is open when the ledger is upgraded closes then."""

# What came of an account's decisions, in order: (reward, kind, ends its episode, folded).
LIFE: list[list[tuple[float, str, bool, bool]]] = [
    [(3.0, "received", False, True)],
    [(-1.0, "default", False, True), (2.5, "received", True, True)],  # late, applied
    [(0.1, "received", True, True), (2.0, "received", False, False)],  # a second piece
    [],  # in flight
]
FOLDED = [(3.0, False), (-1.0, False), (2.5, True), (0.1, True)]


def upgrade(url: str, revision: str) -> Engine:
    """The database at `url`, at that revision."""
    engine = create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return engine


def insert(connection: Connection, table: str, **row: Any) -> None:
    names = ", ".join(row)
    values = ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)


def fill(connection: Connection) -> None:
    """What the first release leaves behind, in its own columns."""
    insert(connection, "ledgers", ledger_id="0123456789abcdef0123456789abcdef")
    insert(
        connection,
        "spec_versions",
        workflow="help",
        version=1,
        sha256=SPEC.sha256,
        body=SPEC.canonical,
        created_at_us=1,
    )
    for tenant in TENANTS:
        for account in ACCOUNTS:
            fill_account(connection, tenant, account)


def fill_account(connection: Connection, tenant: str, account: str) -> None:
    key = {"tenant": tenant, "workflow": "help", "account_id": account}
    state = AccountAdaptation()
    for reward, _ in FOLDED:
        state = observe(state, reward, SPEC.adaptation, SPEC.reward)
    insert(
        connection,
        "accounts",
        **key,
        generation=0,
        position=len(FOLDED),
        decisions=len(LIFE),
        phase=state.phase,
        adapted_at=state.adapted_at,
        recent_rewards=json.dumps(state.recent),
        created_at_us=1,
        updated_at_us=99,
    )
    position = 0
    for n, pieces in enumerate(LIFE):
        decision_id = f"{account}-d{n}"
        insert(
            connection,
            "decisions",
            **key,
            decision_id=decision_id,
            episode_id="e" if n else None,
            spec_version=1,
            policy="counting/1",
            context=json.dumps(CONTEXT),
            asked_for=json.dumps(["mail"]),
            action="mail",
            probability=1.0,
            draw=0.1 + 0.2,
            reason="policy",
            limits="[]",
            generation=0,
            position=position,
            request_sha256="0" * 64,
            created_at_us=10 + n,
            expires_at_us=50 if pieces else OPEN_UNTIL,
            default_due_at_us=None if pieces else OPEN_UNTIL,
            folded=bool(pieces),
        )
        for i, (reward, kind, end, folded) in enumerate(pieces):
            position += folded
            insert(
                connection,
                "feedback",
                **key,
                decision_id=decision_id,
                kind=kind,
                feedback_id="" if kind == "default" else f"f{i}",
                generation=0 if folded else None,
                position=position if folded else None,
                reward=reward,
                outcome=None,
                episode_end=end,
                late=n == 1 and i == 1,
                occurred_at_us=None,
                received_at_us=60 + i,
                request_sha256="1" * 64,
            )


def rows(connection: Connection, table: str) -> list[dict[str, Any]]:
    found = connection.execute(text(f"SELECT * FROM {table}")).mappings()
    return sorted((dict(row) for row in found), key=str)


DROPPED = ("decisions", "default_due_at_us", "folded")
"""Columns whose content is elsewhere now: counted, or in a table of its own."""
TABLES = ("ledgers", "spec_versions", "accounts", "decisions", "feedback")


@pytest.fixture
def filled(database: str) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """A ledger as the first release left it, and its rows."""
    engine = upgrade(database, "0001")
    if database.startswith("sqlite"):
        with engine.connect() as connection:
            for pragma in SQLITE_PRAGMAS:
                connection.exec_driver_sql(f"PRAGMA {pragma}")
    with engine.begin() as connection:
        fill(connection)
    with engine.connect() as connection:
        before = {table: rows(connection, table) for table in TABLES}
    engine.dispose()
    return database, before


Filled = tuple[str, dict[str, list[dict[str, Any]]]]


async def test_every_row_and_every_value_is_still_there(filled: Filled) -> None:
    url, before = filled
    ledger = Ledger.open(url)
    assert ledger.ledger_id == before["ledgers"][0]["ledger_id"]
    assert ledger.register_spec(SPEC, 2) == 1
    with ledger._engine.connect() as connection:
        for table, were in before.items():
            now = rows(connection, table)
            assert len(now) == len(were) > 0
            names = [name for name in were[0] if name not in DROPPED]
            known = [{name: row[name] for name in names} for row in now]
            assert sorted(known, key=str) == sorted(
                ({name: row[name] for name in names} for row in were), key=str
            )
        for account in rows(connection, "accounts"):
            assert (account["base_generation"], account["kept_above"]) == (0, 0)
        due = [
            (one["default_due_at_us"], one["tenant"], one["decision_id"])
            for one in before["decisions"]
            if one["default_due_at_us"] is not None
        ]
        assert len(due) == len(TENANTS) * len(ACCOUNTS)
        found = {tuple(row.values()) for row in rows(connection, "defaults_due")}
        assert found == set(due)
        for decision in rows(connection, "decisions"):
            assert (decision["mode"], decision["activated_at_us"]) == ("serve", None)
        for given in rows(connection, "feedback"):
            folded = given["position"] is not None
            assert given["folded_reward"] == (given["reward"] if folded else None)
            assert given["folded_end"] == (given["episode_end"] if folded else None)
        for table in ("generations", "snapshots", "tombstones"):
            assert rows(connection, table) == []
    await ledger.close()


async def test_every_past_is_what_it_was(filled: Filled) -> None:
    ledger = Ledger.open(filled[0])
    for tenant in TENANTS:
        for account in ACCOUNTS:
            key = AccountKey(tenant, "help", account)
            past = await ledger.past(key, None)
            assert past.head == past.end == Head(0, 4)
            assert past.complete
            assert [(one.reward, one.episode_end) for one in past.interactions] == FOLDED
            assert {(one.action, one.context["plan"]) for one in past.interactions} == {
                ("mail", "premium")
            }
            assert len(await ledger.feedback(tenant, f"{account}-d2")) == 2
            account_now = await ledger.account(key)
            assert account_now is not None
            assert account_now.adaptation.recent == (-1.0, 2.5, 0.1)
    await ledger.close()


async def test_keys_are_still_unique(filled: Filled) -> None:
    ledger = Ledger.open(filled[0])
    engine, sqlite = ledger._engine, ledger._engine.dialect.name == "sqlite"
    columns = {one["name"] for one in inspect(engine).get_columns("feedback")}
    copied = ", ".join(sorted(columns - {"feedback_id", "decision_id"}))
    again = (  # the same place in the same past
        f"INSERT INTO feedback ({copied}, feedback_id, decision_id) SELECT {copied}, 'other', "
        "'a-d3' FROM feedback WHERE tenant = 'default' AND decision_id = 'a-d0'"
    )
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(again))
    with engine.connect() as connection:
        if sqlite:
            assert connection.exec_driver_sql("PRAGMA integrity_check").all() == [("ok",)]
        uniques = inspect(connection).get_unique_constraints("feedback")
        of_account = ["account_id", "workflow", "tenant", "position", "generation"]
        assert [one["column_names"] for one in uniques] == [of_account]
        assert inspect(connection).get_foreign_keys("feedback") == []
    await ledger.close()


async def test_opening_it_twice_changes_nothing_more(filled: Filled) -> None:
    seen = []
    for _ in range(2):
        ledger = Ledger.open(filled[0])
        with ledger._engine.connect() as connection:
            seen.append({table: rows(connection, table) for table in TABLES})
        await ledger.close()
    assert seen[0] == seen[1]


async def test_the_service_goes_on_from_there(
    filled: Filled, open_client: Open, settings: Settings, time: Time
) -> None:
    url, _ = filled
    async with open_client(ledger_url=url) as client:
        for tenant in TENANTS:
            key = AccountKey(tenant, "help", "a")
            answer = await client.decide("a", tenant=tenant, decision_id="new", actions=["call"])
            assert answer.json()["memory_position"] == 4
            await client.learn("new", tenant=tenant, reward=3)
            open_still = await client.learn("a-d3", tenant=tenant, reward=2)
            assert open_still.json()["memory_position"] == 6
            await agree(client, key)
            assert [one.reward for one in await past_of(client, key)] == [3, -1, 2.5, 0.1, 3, 2]
        twin = await client.learn("a-d2", reward=2, feedback_id="f9")
        assert twin.json()["status"] == "recorded"
        time.pass_seconds(51)
        assert await client.service.jobs.fold_defaults() == len(TENANTS)  # of account b
        assert (await client.decide("b")).json()["memory_position"] == 5


async def test_what_was_folded_before_the_upgrade_can_be_revised_after_it(
    filled: Filled, open_client: Open, settings: Settings
) -> None:
    """A new version of the workflow's file aggregates; decisions keep the rules of their day."""
    declare(settings, "aggregation: latest")
    async with open_client(ledger_url=filled[0]) as client:
        kept = await client.learn("a-d0", reward=1, feedback_id="second")
        assert kept.json()["status"] == "recorded"
        await client.decide("a", decision_id="new", actions=["call"])
        for n, reward in enumerate((1, 2)):
            await client.learn("new", reward=reward, feedback_id=f"f{n}")
        await agree(client)
        account = await client.service.ledger.account(AccountKey("default", "help", "a"))
        assert account is not None
        assert account.head == Head(1, 5)
        anew = await client.service.ledger.reset(account.key, 1_000)
        assert anew.head == Head(2, 0)
        assert (await client.service.ledger.erase(account.key, 1_000)).decisions == 5


def test_migrate_says_what_it_did_and_what_is_to_do(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCLIMATE_LEDGER_URL", database)
    upgrade(database, "0004").dispose()
    for arguments, status, standing in (
        (["--check"], 1, "older"),
        ([], 0, "older"),
        (["--check"], 0, "current"),
        ([], 0, "current"),
    ):
        told = CliRunner().invoke(main, ["migrate", *arguments, "--json"])
        assert told.exit_code == status, told.output
        assert json.loads(told.stdout)["standing"] == standing
    with create_engine(database).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for arguments in ([], ["--check"]):
        told = CliRunner().invoke(main, ["migrate", *arguments])
        assert told.exit_code == 2, told.output
        assert "9999" in told.output


def test_several_that_migrate_at_once_do_it_once(database: str) -> None:
    upgrade(database, "0001").dispose()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(migrate_ledger, [database] * 4))
    assert sorted(map(str, found)) == ["0001", *([newest()] * 3)]


def test_of_jobs_only_a_last_run_that_ended_well_is_known_to_have(database: str) -> None:
    engine = upgrade(database, "0010")
    common = {"fence": 3, "holder": "one", "until_us": 0, "began_at_us": 5, "kept": "{}"}
    with engine.begin() as connection:
        insert(connection, "jobs", job="alarms", ended_at_us=7, outcome="done", **common)
        insert(connection, "jobs", job="curves", ended_at_us=None, outcome="done", **common)
        insert(connection, "jobs", job="defaults", ended_at_us=7, outcome="failed", **common)
    engine.dispose()
    engine = upgrade(database, "head")
    with engine.connect() as connection:
        done = {row["job"]: row["done_at_us"] for row in rows(connection, "jobs")}
    engine.dispose()
    assert done == {"alarms": 7, "curves": None, "defaults": None}


def test_a_release_refuses_a_ledger_of_a_later_one(
    service_process: Callable[..., ServiceProcess], settings: Settings, database: str
) -> None:
    upgrade(database, "head").dispose()
    with create_engine(database).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for migrations in ("start", "wait"):
        service = service_process(
            start=False,
            workflows=settings.workflows,
            policies=settings.policies,
            ledger_url=database,
            migrations=migrations,
        )
        ended = service.run()
        assert ended.returncode == 2, ended.stdout
        assert "version 9999, which this release does not know" in ended.stdout
        assert "Traceback" not in ended.stdout


def test_a_replica_that_waits_is_ready_once_somebody_migrated(
    service_process: Callable[..., ServiceProcess], settings: Settings, database: str
) -> None:
    upgrade(database, "0001").dispose()
    service = service_process(
        start=False,
        workflows=settings.workflows,
        policies=settings.policies,
        ledger_url=database,
        migrations="wait",
    )
    service.start(wait=False)
    assert wait_until(lambda: "waiting for" in service.log_tail(), timeout_seconds=20)
    assert not service.ready()
    assert service.terminate() == 0  # also while it waits
    service.start(wait=False)
    assert not service.ready()
    assert migrate_ledger(database) == "0001"
    service.wait_ready()
