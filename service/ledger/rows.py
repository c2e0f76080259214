"""Rows to records and back: what a group of writes needs is loaded, what it changed is stored."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, delete, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from contract.adaptation import AccountAdaptation
from service.fault_points import reach
from service.ledger.records import (
    Account,
    AccountKey,
    Decision,
    Feedback,
    Generation,
    Head,
    Snapshot,
)
from service.ledger.settle import FeedbackWrite, Write
from service.ledger.statements import fetch, run
from service.ledger.tables import (
    accounts,
    decisions,
    generations,
    of_account,
    snapshots,
    tombstones,
)
from service.ledger.view import DecisionKey, View

SNAPSHOTS_KEPT = 2
"""Of one account and policy. The older one serves while the newer one may prove too new."""

Hash = Callable[..., str]
"""A keyed hash of what was erased; see `service.ledger.erasure`."""


def load(
    connection: Connection,
    writes: Sequence[Write],
    tombstone: Hash,
    owners: Mapping[DecisionKey, AccountKey],
) -> View:
    """The rows that the writes touch; an account that is not there yet is a blank one.

    Accounts are locked in key order, so that the groups of two processes cannot wait for each
    other in a circle, and everything else is read under their locks. `owners` are the accounts of
    decisions as far as known.
    """
    view = View()
    wanted = {write.decision_key for write in writes if write.decision_key is not None}
    keys = {write.account_key for write in writes if write.account_key is not None}
    of_somebody = {
        write.decision_key
        for write in writes
        if write.account_key is None and write.decision_key is not None
    }
    unknown: set[DecisionKey] = set()
    for key in of_somebody:
        owner = owners.get(key)
        if owner is None:
            unknown.add(key)
        else:
            keys.add(owner)
    if unknown:
        _read_decisions(connection, view, unknown)
        keys |= {one.key for one in view.decisions.values()}
        view.decisions.clear()
    _lock_accounts(connection, view, sorted(keys))
    _read_decisions(connection, view, wanted)
    if any(view.decisions[key].key not in keys for key in of_somebody & view.decisions.keys()):
        return load(connection, writes, tombstone, {})  # an id that retention let go was used anew
    _read_feedback(connection, view, writes)
    _read_tombstones(connection, view, wanted, keys, tombstone, min(one.at_us for one in writes))
    return view


def store(connection: Connection, view: View) -> None:
    """Everything that the group changed, a statement a table."""
    for generation in view.opened:
        _open(connection, generation)
    changed = view.decided | view.moved
    if fresh := sorted(changed & view.fresh):
        run(connection, "add_accounts", [_new_account_row(view.accounts[key]) for key in fresh])
    if decided := sorted(view.decided - view.moved - view.fresh):
        run(connection, "count_accounts", [_counted_row(view.accounts[key]) for key in decided])
    if moved := sorted(view.moved - view.fresh):
        run(connection, "move_accounts", [_moved_row(view.accounts[key]) for key in moved])
    reach("ledger.between_statements")
    if view.made:
        made = [_decision_row(view.decisions[key]) for key in sorted(view.made)]
        run(connection, "add_decisions", made)
    if activated := sorted(view.activated - view.made):
        rows = [_activated_row(view.decisions[key]) for key in activated]
        run(connection, "activate_decisions", rows)
    if view.given:
        given = [_feedback_row(one) for one in sorted(view.given, key=_feedback_order)]
        run(connection, "add_feedback", given)
    if folded := sorted(view.folded - view.made):
        rows = [_decision_key_row(key) | _FOLDED for key in folded]
        run(connection, "fold_decisions", rows)
    for snapshot in view.snapshots:
        _keep(connection, snapshot)


def find_decision(connection: Connection, tenant: str, decision_id: str) -> Decision | None:
    """The tenant's decision of that id."""
    query = select(decisions).where(
        decisions.c.tenant == tenant, decisions.c.decision_id == decision_id
    )
    row = connection.execute(query).first()
    return None if row is None else to_decision(row)


def _arrival(row: Row[Any]) -> tuple[Any, ...]:
    """The order of one decision's feedback, as near as clocks tell it: a default before what came
    on its heels, what changed the past before what was only kept."""
    kept = row.generation is None
    place = () if kept else (row.generation, row.position)
    return row.received_at_us, row.kind, kept, place, row.feedback_id


def find_feedback(connection: Connection, keys: Iterable[DecisionKey]) -> list[Feedback]:
    """Everything that came of these decisions, in order of arrival."""
    rows = [
        row
        for tenant, ids in _by_tenant(keys).items()
        for row in fetch(connection, "read_feedback", ids, tenant=tenant)
    ]
    return [to_feedback(row) for row in sorted(rows, key=_arrival)]


def find_account(connection: Connection, key: AccountKey) -> Account | None:
    """The account as of its head."""
    query = select(accounts).where(
        *of_account(accounts, key),
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
            row.position, _rewards(row.recent_rewards), row.phase, row.adapted_at
        ),
        created_at_us=row.created_at_us,
        updated_at_us=row.updated_at_us,
        base_generation=row.base_generation,
        kept_above=row.kept_above,
        used_position=row.used_position,
        unaware_decisions=row.unaware_decisions,
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
        folded=bool(row.folded),
        mode=row.mode,
        activated_at_us=row.activated_at_us,
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
        episode_end=bool(row.episode_end),
        occurred_at_us=row.occurred_at_us,
        received_at_us=row.received_at_us,
        request_sha256=row.request_sha256,
        late=bool(row.late),
        head=None if row.position is None else Head(row.generation, row.position),
        folded_reward=row.folded_reward,
        folded_end=None if row.folded_end is None else bool(row.folded_end),
    )


@lru_cache(maxsize=10_000)
def _rewards(text: str) -> tuple[float, ...]:
    return tuple(json.loads(text))


@lru_cache(maxsize=1_000)
def _listed(names: tuple[str, ...]) -> str:
    return json.dumps(names)


_ANY_TOMBSTONE = select(tombstones.c.digest).limit(1)
_FOLDED = {"folded": True, "default_due_at_us": None}
_REWRITTEN = ("generation", "policy", "memory", "created_at_us")


def _lock_accounts(connection: Connection, view: View, keys: list[AccountKey]) -> None:
    by_workflow: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key in keys:
        by_workflow[key.tenant, key.workflow].append(key.account_id)
    for (tenant, workflow), names in by_workflow.items():
        for row in fetch(connection, "lock_accounts", names, tenant=tenant, workflow=workflow):
            account = to_account(row)
            view.accounts[account.key] = account


def _read_decisions(connection: Connection, view: View, keys: Iterable[DecisionKey]) -> None:
    """Puts the decisions of these keys into the view as they are now."""
    for tenant, ids in _by_tenant(keys).items():
        for row in fetch(connection, "read_decisions", ids, tenant=tenant):
            view.decisions[tenant, row.decision_id] = to_decision(row)


def _read_feedback(connection: Connection, view: View, writes: Sequence[Write]) -> None:
    """Puts what came before into the view, of the decisions that something comes of now."""
    keys = {write.decision_key for write in writes if isinstance(write, FeedbackWrite)}
    for given in find_feedback(connection, keys & view.decisions.keys()):
        of_decision = view.feedback.setdefault((given.key.tenant, given.decision_id), {})
        of_decision[given.kind, given.feedback_id] = given


def _read_tombstones(
    connection: Connection,
    view: View,
    wanted: set[DecisionKey],
    keys: set[AccountKey],
    tombstone: Hash,
    at_us: int,
) -> None:
    """Finds out which of the unknown were erased; an account of an erased name starts above the
    generation it was erased in, so that no memory of its past can ever be taken for its own."""
    fresh = [key for key in keys if key not in view.accounts]
    unknown = [key for key in wanted if key not in view.decisions]
    started: dict[AccountKey, int] = {}
    if (fresh or unknown) and connection.scalar(_ANY_TOMBSTONE):
        of_decision = {tombstone("decision", *key): key for key in unknown}
        of_account = {tombstone("account", *key): key for key in fresh}
        for row in fetch(connection, "read_tombstones", sorted([*of_decision, *of_account])):
            if row.digest in of_account:
                started[of_account[row.digest]] = row.generation + 1
            else:
                view.erased.add(of_decision[row.digest])
    for key in fresh:
        generation = started.get(key, 0)
        view.accounts[key] = Account(
            key,
            Head(generation, 0),
            0,
            AccountAdaptation(),
            at_us,
            at_us,
            base_generation=generation,
        )
        view.fresh.add(key)


def _open(connection: Connection, generation: Generation) -> None:
    """Records a change of the past, and deletes the memories that are no prefix of it any more."""
    row = {**generation.key._asdict(), **generation._asdict()}
    del row["key"]
    connection.execute(generations.insert(), row)
    columns = snapshots.c
    connection.execute(
        delete(snapshots).where(
            *of_account(snapshots, generation.key),
            columns.position >= generation.position,
        )
    )


def _keep(connection: Connection, snapshot: Snapshot) -> None:
    """Keeps a memory, and lets go of all but the newest few of its account and policy."""
    insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    row = {**snapshot.key._asdict(), **snapshot._asdict(), **snapshot.head._asdict()}
    del row["key"], row["head"]
    written = insert(snapshots).values(row)  # over one that proved unreadable, where there is one
    connection.execute(
        written.on_conflict_do_update(
            index_elements=snapshots.primary_key.columns,
            set_={name: written.excluded[name] for name in _REWRITTEN},
        )
    )
    columns = snapshots.c
    of_policy = (
        *of_account(snapshots, snapshot.key),
        columns.digest == snapshot.digest,
    )
    newest = select(columns.position).where(*of_policy).order_by(columns.position.desc())
    kept = connection.scalars(newest.limit(SNAPSHOTS_KEPT)).all()
    base = select(accounts.c.kept_above).where(
        *of_account(accounts, snapshot.key),
    )
    connection.execute(
        delete(snapshots).where(
            *of_policy,
            columns.position < kept[-1],
            columns.position != base.scalar_subquery(),  # all that is left of what is deleted
        )
    )


def _by_tenant(keys: Iterable[DecisionKey]) -> dict[str, list[str]]:
    """Decision ids by tenant, both in order."""
    ids: dict[str, list[str]] = defaultdict(list)
    for tenant, decision_id in sorted(keys):
        ids[tenant].append(decision_id)
    return ids


def _feedback_order(given: Feedback) -> tuple[str, str, str, str]:
    """Rows are stored in key order, as accounts are locked."""
    return given.key.tenant, given.decision_id, given.kind, given.feedback_id


def _account_key_row(key: AccountKey) -> dict[str, Any]:
    return {"the_tenant": key.tenant, "the_workflow": key.workflow, "the_account_id": key[2]}


def _decision_key_row(key: DecisionKey) -> dict[str, Any]:
    return {"the_tenant": key[0], "the_decision_id": key[1]}


def _counts(account: Account) -> dict[str, Any]:
    return {
        "decisions": account.decisions,
        "used_position": account.used_position,
        "unaware_decisions": account.unaware_decisions,
    }


def _head(account: Account) -> dict[str, Any]:
    adaptation = account.adaptation
    return {
        "generation": account.head.generation,
        "position": account.head.position,
        "phase": adaptation.phase,
        "adapted_at": adaptation.adapted_at,
        "recent_rewards": json.dumps(adaptation.recent),
        "updated_at_us": account.updated_at_us,
        "base_generation": account.base_generation,
        "kept_above": account.kept_above,
    }


def _counted_row(account: Account) -> dict[str, Any]:
    return _account_key_row(account.key) | _counts(account)


def _moved_row(account: Account) -> dict[str, Any]:
    return _account_key_row(account.key) | _counts(account) | _head(account)


def _new_account_row(account: Account) -> dict[str, Any]:
    created = {**account.key._asdict(), "created_at_us": account.created_at_us}
    return created | _counts(account) | _head(account)


def _activated_row(decision: Decision) -> dict[str, Any]:
    return _decision_key_row((decision.key.tenant, decision.decision_id)) | {
        "activated_at_us": decision.activated_at_us,
        "expires_at_us": decision.expires_at_us,
        "default_due_at_us": decision.default_due_at_us,
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
        "limits": _listed(tuple(decision.limits)),
        "generation": decision.head.generation,
        "position": decision.head.position,
        "request_sha256": decision.request_sha256,
        "created_at_us": decision.created_at_us,
        "expires_at_us": decision.expires_at_us,
        "default_due_at_us": decision.default_due_at_us,
        "folded": decision.folded,
        "mode": decision.mode,
        "activated_at_us": decision.activated_at_us,
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
        "folded_reward": given.folded_reward,
        "folded_end": given.folded_end,
        "reward": given.reward,
        "outcome": given.outcome,
        "episode_end": given.episode_end,
        "late": given.late,
        "occurred_at_us": given.occurred_at_us,
        "received_at_us": given.received_at_us,
        "request_sha256": given.request_sha256,
    }
