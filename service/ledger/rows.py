"""Rows to records and back, and the queries that several places ask."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from contract.adaptation import AccountAdaptation
from service.ledger.records import Account, AccountKey, Decision, Feedback, Head
from service.ledger.settle import DecisionKey, View, Write
from service.ledger.tables import accounts, decisions, feedback


def load(connection: Connection, writes: Sequence[Write]) -> View:
    """The rows that the writes touch; an account that is not there yet is a blank one.

    Accounts are locked in key order, so that the groups of two processes cannot wait for each
    other in a circle.
    """
    view = View()
    _read_decisions(connection, view, {write.decision_key for write in writes})
    keys = {one.key for one in view.decisions.values()}
    keys |= {write.account_key for write in writes if write.account_key is not None}
    _lock_accounts(connection, view, sorted(keys))
    at_us = min(write.at_us for write in writes)
    for key in keys:
        if key not in view.accounts:
            view.accounts[key] = Account(key, Head(), 0, AccountAdaptation(), at_us, at_us)
            view.fresh.add(key)
    if connection.dialect.name != "sqlite":  # what was read before the locks may have changed
        _read_decisions(connection, view, set(view.decisions))
    for tenant, ids in _by_tenant(view.decisions).items():
        one_of = feedback.c.tenant == tenant, feedback.c.decision_id.in_(ids)
        for row in connection.execute(select(feedback).where(*one_of)):
            of_decision = view.feedback.setdefault((tenant, row.decision_id), {})
            of_decision[row.kind, row.feedback_id] = to_feedback(row)
    return view


def store(connection: Connection, view: View) -> None:
    """Everything that the group changed, a statement a table."""
    made = [_decision_row(view.decisions[key]) for key in sorted(view.made)]
    given = [_feedback_row(one) for one in sorted(view.given, key=_feedback_order)]
    fresh = [_new_account_row(view.accounts[key]) for key in sorted(view.moved & view.fresh)]
    moved = [_moved_account_row(view.accounts[key]) for key in sorted(view.moved - view.fresh)]
    folded = [
        {"the_tenant": tenant, "the_decision": decision_id}
        for tenant, decision_id in sorted(view.folded - view.made)
    ]
    if fresh:
        connection.execute(insert(accounts), fresh)
    if moved:
        connection.execute(_MOVED, moved)
    if made:
        connection.execute(insert(decisions), made)
    if given:
        connection.execute(insert(feedback), given)
    if folded:
        connection.execute(_FOLDED, folded)


def find_decision(connection: Connection, tenant: str, decision_id: str) -> Decision | None:
    """The tenant's decision of that id."""
    query = select(decisions).where(
        decisions.c.tenant == tenant, decisions.c.decision_id == decision_id
    )
    row = connection.execute(query).first()
    return None if row is None else to_decision(row)


def find_feedback(connection: Connection, tenant: str, decision_id: str) -> list[Feedback]:
    """Everything that came of a decision, in order of arrival."""
    query = (
        select(feedback)
        .where(feedback.c.tenant == tenant, feedback.c.decision_id == decision_id)
        .order_by(feedback.c.received_at_us, feedback.c.kind)
    )
    return [to_feedback(row) for row in connection.execute(query)]


def find_account(connection: Connection, key: AccountKey) -> Account | None:
    """The account as of its head."""
    query = select(accounts).where(
        accounts.c.tenant == key.tenant,
        accounts.c.workflow == key.workflow,
        accounts.c.account_id == key.account_id,
    )
    row = connection.execute(query).first()
    return None if row is None else to_account(row)


def to_account(row: Row[Any]) -> Account:
    """An account from its row."""
    return Account(
        key=AccountKey(row.tenant, row.workflow, row.account_id),
        head=Head(row.generation, row.position),
        decisions=row.decisions,
        adaptation=AccountAdaptation(
            row.position, tuple(json.loads(row.recent_rewards)), row.phase, row.adapted_at
        ),
        created_at_us=row.created_at_us,
        updated_at_us=row.updated_at_us,
    )


def to_decision(row: Row[Any]) -> Decision:
    """A decision from its row."""
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


def to_feedback(row: Row[Any]) -> Feedback:
    """A piece of feedback from its row."""
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
        head=None if row.position is None else Head(row.generation, row.position),
    )


_MOVED = (
    update(accounts)
    .where(
        accounts.c.tenant == bindparam("the_tenant"),
        accounts.c.workflow == bindparam("the_workflow"),
        accounts.c.account_id == bindparam("the_account"),
    )
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                "generation",
                "position",
                "decisions",
                "phase",
                "adapted_at",
                "recent_rewards",
                "updated_at_us",
            )
        }
    )
)

_FOLDED = (
    update(decisions)
    .where(
        decisions.c.tenant == bindparam("the_tenant"),
        decisions.c.decision_id == bindparam("the_decision"),
    )
    .values(folded=True, default_due_at_us=None)
)


def _lock_accounts(connection: Connection, view: View, keys: list[AccountKey]) -> None:
    by_workflow: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key in keys:
        by_workflow[key.tenant, key.workflow].append(key.account_id)
    for (tenant, workflow), names in by_workflow.items():
        query = (
            select(accounts)
            .where(
                accounts.c.tenant == tenant,
                accounts.c.workflow == workflow,
                accounts.c.account_id.in_(names),
            )
            .order_by(accounts.c.account_id)
            .with_for_update()
        )
        for row in connection.execute(query):
            account = to_account(row)
            view.accounts[account.key] = account


def _read_decisions(connection: Connection, view: View, keys: Collection[DecisionKey]) -> None:
    """Puts the decisions of these keys into the view as they are now."""
    for tenant, ids in _by_tenant(keys).items():
        one_of = decisions.c.tenant == tenant, decisions.c.decision_id.in_(ids)
        for row in connection.execute(select(decisions).where(*one_of)):
            view.decisions[tenant, row.decision_id] = to_decision(row)


def _by_tenant(keys: Iterable[DecisionKey]) -> dict[str, list[str]]:
    """Decision ids by tenant, both in order."""
    ids: dict[str, list[str]] = defaultdict(list)
    for tenant, decision_id in sorted(keys):
        ids[tenant].append(decision_id)
    return ids


def _feedback_order(given: Feedback) -> tuple[str, str, str, str]:
    """Rows are stored in key order, as accounts are locked."""
    return given.key.tenant, given.decision_id, given.kind, given.feedback_id


def _moved_account_row(account: Account) -> dict[str, Any]:
    key = account.key
    return {
        "the_tenant": key.tenant,
        "the_workflow": key.workflow,
        "the_account": key.account_id,
    } | {f"new_{name}": value for name, value in _account_state(account).items()}


def _new_account_row(account: Account) -> dict[str, Any]:
    return {
        **account.key._asdict(),
        **_account_state(account),
        "created_at_us": account.created_at_us,
    }


def _account_state(account: Account) -> dict[str, Any]:
    """The columns that change."""
    adaptation = account.adaptation
    return {
        "generation": account.head.generation,
        "position": account.head.position,
        "decisions": account.decisions,
        "phase": adaptation.phase,
        "adapted_at": adaptation.adapted_at,
        "recent_rewards": json.dumps(adaptation.recent),
        "updated_at_us": account.updated_at_us,
    }


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


def _feedback_row(given: Feedback) -> dict[str, Any]:
    return {
        "tenant": given.key.tenant,
        "decision_id": given.decision_id,
        "kind": given.kind,
        "feedback_id": given.feedback_id,
        "workflow": given.key.workflow,
        "account_id": given.key.account_id,
        "generation": given.head.generation if given.head else None,
        "position": given.head.position if given.head else None,
        "reward": given.reward,
        "outcome": given.outcome,
        "episode_end": given.episode_end,
        "late": given.late,
        "occurred_at_us": given.occurred_at_us,
        "received_at_us": given.received_at_us,
        "request_sha256": given.request_sha256,
    }
