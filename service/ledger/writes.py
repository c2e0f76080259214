"""The ledger's writes, each a function of one connection inside one transaction.

Whatever is counted per account is checked and counted here, under the account's lock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, insert, select, update

from contract.adaptation import AccountAdaptation, observe
from contract.spec import WorkflowSpec
from service.ledger.records import (
    Account,
    AccountKey,
    BodyConflictError,
    Decision,
    DecisionUnknownError,
    Feedback,
    Head,
)
from service.ledger.tables import accounts, decisions, feedback


@dataclass(frozen=True)
class Behind:
    """The memory a decision was made from is not at the account's head; nothing was written."""

    head: Head


@dataclass(frozen=True)
class Committed:
    """A decision is in the ledger; `new` when this write put it there."""

    decision: Decision
    new: bool


@dataclass(frozen=True)
class Recorded:
    """A piece of feedback is in the ledger."""

    feedback: Feedback
    decision: Decision
    duplicate: bool
    head: Head
    """The account's head now; a memory below it has something to fold."""
    newly_adapted_at: int | None = None


def record_decision(
    connection: Connection, decision: Decision, *, must_be_current: bool
) -> Committed | Behind:
    """Commits a decision, or returns the one this id already has, or Behind when it must be
    current and was not made from the account's head. Raises BodyConflictError when the id has
    another body."""
    stored = find_decision(connection, decision.key.tenant, decision.decision_id)
    if stored is not None:
        if stored.request_sha256 != decision.request_sha256:
            raise BodyConflictError("decision_id", decision.decision_id)
        return Committed(stored, new=False)
    account = _lock_account(connection, decision.key, decision.created_at_us)
    if must_be_current and decision.head != account.head:
        return Behind(account.head)
    committed = replace(decision, head=decision.head or account.head)
    connection.execute(insert(decisions).values(_decision_row(committed)))
    connection.execute(
        update(accounts)
        .where(*_is(decision.key))
        .values(decisions=accounts.c.decisions + 1, updated_at_us=decision.created_at_us)
    )
    return Committed(committed, new=True)


def record_feedback(connection: Connection, given: Feedback, spec: WorkflowSpec) -> Recorded:
    """Commits one piece of feedback and, where its workflow folds it, its position.

    `spec` is the one its decision was made under. Raises DecisionUnknownError and
    BodyConflictError.
    """
    decision = find_decision(connection, given.key.tenant, given.decision_id, lock=True)
    if decision is None:
        raise DecisionUnknownError(given.decision_id)
    account = _lock_account(connection, decision.key, given.received_at_us)
    twin = connection.execute(
        select(feedback).where(
            feedback.c.tenant == given.key.tenant,
            feedback.c.decision_id == given.decision_id,
            feedback.c.kind == given.kind,
            feedback.c.feedback_id == given.feedback_id,
        )
    ).first()
    if twin is not None:
        if twin.request_sha256 != given.request_sha256:
            raise BodyConflictError("feedback_id", given.feedback_id)
        return Recorded(_to_feedback(twin), decision, True, account.head)
    late = given.received_at_us > decision.expires_at_us
    adapted_at = None
    if late and decision.default_due_at_us is not None:
        # The window closed first: what is due at expiry is folded before what came after it.
        default = default_feedback(decision, spec, given.received_at_us)
        default, account, adapted_at = _fold(connection, default, account, spec)
    given = replace(given, late=late)
    if spec.feedback.late == "apply" if late else not decision.folded:
        given, account, newly = _fold(connection, given, account, spec)
        adapted_at = adapted_at if adapted_at is not None else newly
    else:
        _insert_feedback(connection, given)
    return Recorded(given, decision, False, account.head, adapted_at)


def record_default(
    connection: Connection, decision: Decision, spec: WorkflowSpec, now_us: int
) -> Recorded | None:
    """Folds the default reward of a decision whose window has closed; None when it is not due."""
    current = find_decision(connection, decision.key.tenant, decision.decision_id, lock=True)
    if current is None or current.default_due_at_us is None or current.default_due_at_us >= now_us:
        return None
    account = _lock_account(connection, decision.key, now_us)
    given, account, adapted_at = _fold(
        connection, default_feedback(decision, spec, now_us), account, spec
    )
    return Recorded(given, current, False, account.head, adapted_at)


def default_feedback(decision: Decision, spec: WorkflowSpec, now_us: int) -> Feedback:
    """What is folded when the window of `decision` closes without feedback."""
    reward = spec.feedback.default_reward
    if reward is None:
        raise ValueError(f"{spec.workflow} declares no default reward")
    return Feedback(
        key=decision.key,
        decision_id=decision.decision_id,
        feedback_id="",
        kind="default",
        reward=reward,
        outcome=None,
        episode_end=False,
        occurred_at_us=None,
        received_at_us=now_us,
        request_sha256=decision.request_sha256,
    )


def find_decision(
    connection: Connection, tenant: str, decision_id: str, *, lock: bool = False
) -> Decision | None:
    """The tenant's decision of that id."""
    query = select(decisions).where(
        decisions.c.tenant == tenant, decisions.c.decision_id == decision_id
    )
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _to_decision(row)


def find_feedback(connection: Connection, tenant: str, decision_id: str) -> list[Feedback]:
    """Everything that came of a decision, in order of arrival."""
    query = (
        select(feedback)
        .where(feedback.c.tenant == tenant, feedback.c.decision_id == decision_id)
        .order_by(feedback.c.received_at_us, feedback.c.kind)
    )
    return [_to_feedback(row) for row in connection.execute(query)]


def find_account(connection: Connection, key: AccountKey, *, lock: bool = False) -> Account | None:
    """The account as of its head."""
    query = select(accounts).where(*_is(key))
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else to_account(row)


def to_account(row: Row[Any]) -> Account:
    """An account from its row."""
    head = Head(row.generation, row.position)
    adaptation = AccountAdaptation(
        row.position, tuple(json.loads(row.recent_rewards)), row.phase, row.adapted_at
    )
    key = AccountKey(row.tenant, row.workflow, row.account_id)
    return Account(key, head, row.decisions, adaptation, row.created_at_us, row.updated_at_us)


def _lock_account(connection: Connection, key: AccountKey, now_us: int) -> Account:
    """The account under its lock, made blank on first sight."""
    account = find_account(connection, key, lock=True)
    if account is not None:
        return account
    blank = Account(key, Head(), 0, AccountAdaptation(), now_us, now_us)
    connection.execute(
        insert(accounts).values(
            tenant=key.tenant,
            workflow=key.workflow,
            account_id=key.account_id,
            generation=0,
            position=0,
            decisions=0,
            phase=blank.adaptation.phase,
            adapted_at=None,
            recent_rewards="[]",
            created_at_us=now_us,
            updated_at_us=now_us,
        )
    )
    return blank


def _fold(
    connection: Connection, given: Feedback, account: Account, spec: WorkflowSpec
) -> tuple[Feedback, Account, int | None]:
    """Records `given` as the account's next interaction and moves its head; also says at which
    interaction the account first adapted, when this one did it."""
    head = Head(account.head.generation, account.head.position + 1)
    given = replace(given, head=head)
    _insert_feedback(connection, given)
    before = account.adaptation
    after = observe(before, given.reward, spec.adaptation, spec.reward)
    connection.execute(
        update(accounts)
        .where(*_is(account.key))
        .values(
            position=head.position,
            phase=after.phase,
            adapted_at=after.adapted_at,
            recent_rewards=json.dumps(after.recent),
            updated_at_us=given.received_at_us,
        )
    )
    connection.execute(
        update(decisions)
        .where(decisions.c.tenant == given.key.tenant, decisions.c.decision_id == given.decision_id)
        .values(folded=True, default_due_at_us=None)
    )
    moved = replace(account, head=head, adaptation=after, updated_at_us=given.received_at_us)
    return given, moved, after.adapted_at if before.adapted_at is None else None


def _insert_feedback(connection: Connection, given: Feedback) -> None:
    connection.execute(
        insert(feedback).values(
            tenant=given.key.tenant,
            decision_id=given.decision_id,
            kind=given.kind,
            feedback_id=given.feedback_id,
            workflow=given.key.workflow,
            account_id=given.key.account_id,
            generation=given.head.generation if given.head else None,
            position=given.head.position if given.head else None,
            reward=given.reward,
            outcome=given.outcome,
            episode_end=given.episode_end,
            late=given.late,
            occurred_at_us=given.occurred_at_us,
            received_at_us=given.received_at_us,
            request_sha256=given.request_sha256,
        )
    )


def _decision_row(decision: Decision) -> dict[str, Any]:
    assert decision.head is not None
    return {
        "tenant": decision.key.tenant,
        "decision_id": decision.decision_id,
        "workflow": decision.key.workflow,
        "account_id": decision.key.account_id,
        "episode_id": decision.episode_id,
        "spec_version": decision.spec_version,
        "policy": decision.policy,
        "context": json.dumps(decision.context),
        "asked_for": None if decision.asked_for is None else json.dumps(decision.asked_for),
        "action": decision.action,
        "probability": decision.probability,
        "draw": decision.draw,
        "reason": decision.reason,
        "limits": json.dumps(decision.limits),
        "generation": decision.head.generation,
        "position": decision.head.position,
        "request_sha256": decision.request_sha256,
        "created_at_us": decision.created_at_us,
        "expires_at_us": decision.expires_at_us,
        "default_due_at_us": decision.default_due_at_us,
        "folded": decision.folded,
    }


def _is(key: AccountKey) -> tuple[ColumnElement[bool], ...]:
    return (
        accounts.c.tenant == key.tenant,
        accounts.c.workflow == key.workflow,
        accounts.c.account_id == key.account_id,
    )


def _to_decision(row: Row[Any]) -> Decision:
    return Decision(
        key=AccountKey(row.tenant, row.workflow, row.account_id),
        decision_id=row.decision_id,
        episode_id=row.episode_id,
        spec_version=row.spec_version,
        policy=row.policy,
        context=json.loads(row.context),
        asked_for=None if row.asked_for is None else json.loads(row.asked_for),
        action=row.action,
        probability=row.probability,
        draw=row.draw,
        reason=row.reason,
        limits=json.loads(row.limits),
        head=Head(row.generation, row.position),
        request_sha256=row.request_sha256,
        created_at_us=row.created_at_us,
        expires_at_us=row.expires_at_us,
        default_due_at_us=row.default_due_at_us,
        folded=row.folded,
    )


def _to_feedback(row: Row[Any]) -> Feedback:
    head = None if row.position is None else Head(row.generation, row.position)
    return Feedback(
        key=AccountKey(row.tenant, row.workflow, row.account_id),
        decision_id=row.decision_id,
        feedback_id=row.feedback_id,
        kind=row.kind,
        reward=row.reward,
        outcome=row.outcome,
        episode_end=row.episode_end,
        occurred_at_us=row.occurred_at_us,
        received_at_us=row.received_at_us,
        request_sha256=row.request_sha256,
        late=row.late,
        head=head,
    )
