"""The ledger on SQLite and on real PostgreSQL: migrated, durable, one transaction a group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from contract.adaptation import AccountAdaptation
from contract.spec import SpecError, WorkflowSpec, parse_workflow
from service.ledger.ledger import Ledger
from service.ledger.records import (
    AccountKey,
    BodyConflictError,
    Decision,
    Feedback,
    Head,
    LedgerUnavailableError,
)
from service.ledger.scan import Scope, count_decisions
from service.ledger.settle import (
    Behind,
    Committed,
    DecisionWrite,
    DefaultWrite,
    FeedbackWrite,
)
from service.ledger.tables import metadata
from tests.service.conftest import WORKFLOW

SPEC = parse_workflow(WORKFLOW)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty ledger's address, on each of the databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Ledger]:
    """An open ledger that knows the spec."""
    ledger = Ledger.open(url)
    ledger.register_spec(SPEC, 1)
    yield ledger
    await ledger.close()


def decision(account: str = "a", decision_id: str = "d", head: Head | None = None) -> Decision:
    return Decision(
        key=AccountKey("default", "help", account),
        decision_id=decision_id,
        episode_id=None,
        spec_version=1,
        policy="counting/1",
        context={"tenure": 1.5, "plan": "größer"},
        asked_for=["mail"],
        action="mail",
        probability=1 / 3,
        draw=0.1 + 0.2,
        reason="policy",
        limits=["cheap_only"],
        head=head or Head(),
        request_sha256="0" * 64,
        created_at_us=1_000,
        expires_at_us=2_000,
    )


def feedback(decision_id: str = "d", account: str = "a", at_us: int = 1_500) -> Feedback:
    return Feedback(
        key=AccountKey("default", "help", account),
        decision_id=decision_id,
        feedback_id="",
        kind="received",
        reward=0.1,
        outcome=None,
        episode_end=False,
        occurred_at_us=None,
        received_at_us=at_us,
        request_sha256="1" * 64,
    )


async def decide(ledger: Ledger, one: Decision, current: bool = True) -> Committed | Behind:
    return await ledger.record_decision(DecisionWrite(one, current, has_default=True))


async def learn(ledger: Ledger, one: Feedback) -> Head:
    recorded = await ledger.record_feedback(write(lambda _: (one, SPEC), one))
    return recorded.head


def write(
    interpret: Callable[[Decision], tuple[Feedback, WorkflowSpec]], one: Feedback
) -> FeedbackWrite:
    return FeedbackWrite(
        tenant=one.key.tenant,
        decision_id=one.decision_id,
        feedback_id=one.feedback_id,
        request_sha256=one.request_sha256,
        received_at_us=one.received_at_us,
        interpret=interpret,
    )


async def test_the_migrations_make_exactly_the_tables_that_the_code_declares(
    ledger: Ledger,
) -> None:
    with ledger._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


async def test_a_ledger_opened_again_is_migrated_once_and_keeps_what_it_has(url: str) -> None:
    for round_ in range(3):
        ledger = Ledger.open(url)
        assert ledger.register_spec(SPEC, round_) == 1
        one = decision(decision_id=f"d{round_}")
        assert isinstance(await decide(ledger, one), Committed)
        assert await ledger.read(count_decisions(Scope(*one.key))) == round_ + 1
        await ledger.close()


async def test_a_decision_and_its_feedback_come_back_as_they_went_in(ledger: Ledger) -> None:
    committed = await decide(ledger, decision())
    assert isinstance(committed, Committed)
    assert committed.new
    assert await ledger.decision("default", "d") == committed.decision == decision()
    assert await learn(ledger, feedback()) == Head(0, 1)
    (found,) = await ledger.feedback("default", "d")
    assert (found.reward, found.head, found.late) == (0.1, Head(0, 1), False)
    past = await ledger.past(decision().key, None)
    assert past.head == past.end == Head(0, 1)
    found_again = [(one.position, one.action, one.reward) for one in past.interactions]
    assert found_again == [(1, "mail", 0.1)]
    account = await ledger.account(decision().key)
    assert account is not None
    assert account.adaptation == AccountAdaptation(1, (0.1,), "adapting", None)


async def test_a_decision_from_a_memory_behind_the_head_is_not_written(ledger: Ledger) -> None:
    await decide(ledger, decision())
    await learn(ledger, feedback())
    late = decision(decision_id="late", head=Head(0, 0))
    assert await decide(ledger, late) == Behind(Head(0, 1))
    assert await ledger.decision("default", "late") is None
    outcome = await decide(ledger, late, current=False)
    assert isinstance(outcome, Committed)
    assert outcome.decision.head == Head(0, 0)  # the position it was truly made from


async def test_concurrent_writes_share_commits_and_one_bad_row_fails_alone(url: str) -> None:
    groups: list[int] = []
    ledger = Ledger.open(url, lambda size, _: groups.append(size))
    ledger.register_spec(SPEC, 1)

    def explodes(_: Decision) -> tuple[Feedback, WorkflowSpec]:
        raise ValueError("this one")

    conflicting = decision(account="x", decision_id="d7")
    results = await asyncio.gather(
        *(decide(ledger, decision(account=f"a{i}", decision_id=f"d{i}")) for i in range(60)),
        ledger.record_feedback(write(explodes, feedback("d3", account="a3"))),
        decide(ledger, conflicting._replace(request_sha256="f" * 64)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Committed) and one.new for one in results) == 60
    assert isinstance(results[60], ValueError)
    assert isinstance(results[61], BodyConflictError)
    assert sum(groups) == 62
    assert len(groups) < 10
    await ledger.close()


async def test_two_processes_on_one_account_number_its_interactions_without_a_gap(
    url: str,
) -> None:
    """Two ledgers, each with its own writer, as two replicas have."""
    one, two = Ledger.open(url), Ledger.open(url)
    one.register_spec(SPEC, 1)
    made = [decision(account=f"a{i % 3}", decision_id=f"d{i}") for i in range(60)]
    await asyncio.gather(*(decide((one, two)[i % 2], each) for i, each in enumerate(made)))
    heads = await asyncio.gather(
        *(
            learn((one, two)[(i // 2) % 2], feedback(f"d{i}", account=f"a{i % 3}"))
            for i in range(60)
        )
    )
    assert sorted(head.position for head in heads) == sorted([*range(1, 21)] * 3)
    for account in ("a0", "a1", "a2"):
        past = await two.past(AccountKey("default", "help", account), None)
        assert past.head == Head(0, 20)
        assert [each.position for each in past.interactions] == list(range(1, 21))
    await one.close()
    await two.close()


async def test_the_same_decision_from_two_processes_at_once_is_one_row(url: str) -> None:
    one, two = Ledger.open(url), Ledger.open(url)
    one.register_spec(SPEC, 1)
    outcomes = await asyncio.gather(
        *(decide((one, two)[i % 2], decision(decision_id=f"d{i // 2}")) for i in range(20))
    )
    assert sum(isinstance(each, Committed) and each.new for each in outcomes) == 10
    assert all(isinstance(each, Committed) for each in outcomes)
    await one.close()
    await two.close()


async def test_a_default_is_due_after_the_window_and_only_then(ledger: Ledger) -> None:
    await decide(ledger, decision())
    assert await ledger.defaults_due(2_000, 10) == []
    due = await ledger.defaults_due(2_001, 10)
    assert [one.decision_id for one in due] == ["d"]
    for now_us, head in ((2_000, None), (2_001, Head(0, 1)), (2_002, None)):
        recorded = await ledger.record_default(DefaultWrite(due[0], SPEC, now_us))
        assert (recorded.head if recorded else None) == head
    assert await ledger.defaults_due(3_000, 10) == []


async def test_a_spec_is_immutable_and_its_actions_only_grow(ledger: Ledger) -> None:
    longer = parse_workflow(WORKFLOW.replace("window_seconds: 100", "window_seconds: 200"))
    grown = parse_workflow(
        WORKFLOW.replace("context:\n", "  - {id: visit, features: {cost: 2}}\ncontext:\n", 1)
    )
    assert [ledger.register_spec(one, 1) for one in (longer, grown, SPEC, grown)] == [2, 3, 1, 3]
    assert ledger.spec_version("help", 2) == longer
    renamed = parse_workflow(
        WORKFLOW.replace("- id: wait", "- id: hold").replace(
            "safe_action: wait", "safe_action: hold"
        )
    )
    with pytest.raises(SpecError, match=r"actions: expected the list of version 3"):
        ledger.register_spec(renamed, 1)


async def test_a_ledger_that_is_not_durable_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slack = ("journal_mode=WAL", "synchronous=NORMAL")
    monkeypatch.setattr("service.ledger.ledger.SQLITE_PRAGMAS", slack)
    with pytest.raises(LedgerUnavailableError, match=r"synchronous: expected 2, got 1"):
        Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


async def test_postgresql_without_synchronous_commit_is_refused(postgres_url: str) -> None:
    name = postgres_url.rsplit("/", 1)[1]
    ledger = Ledger.open(postgres_url)
    with ledger._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
    await ledger.close()
    with pytest.raises(LedgerUnavailableError, match=r"synchronous_commit: expected on, got off"):
        Ledger.open(postgres_url)


async def test_a_database_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    for url in (
        f"sqlite:///{tmp_path / 'file' / 'ledger.sqlite'}",
        "postgresql+psycopg://127.0.0.1:1/x",
    ):
        with pytest.raises(LedgerUnavailableError, match="cannot be opened"):
            Ledger.open(url)
