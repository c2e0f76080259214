"""Rows to records and back: what a group of writes needs is loaded, what it changed is stored."""

from __future__ import annotations

import itertools
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
from service.ledger.settle import DecisionWrite, DefaultWrite, FeedbackWrite, Write
from service.ledger.statements import Ask, asks_of_accounts, fetch, run
from service.ledger.tables import (
    accounts,
    decisions,
    generations,
    of_account,
    snapshots,
)
from service.ledger.tallies import read_tallies, tally_row
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
    *,
    begun: bool = False,
) -> View:
    """Begins the transaction, unless it has `begun`, and reads the rows that the writes touch; an
    account that is not there yet is a blank one.

    Accounts that change are locked in key order, so that the groups of two processes cannot wait
    for each other in a circle, and everything else is read under their locks. A decision changes
    none, unless its workflow rations something: it is as if made when its account was read, and
    only an erasure has to wait for it.
    `owners` are the accounts of decisions as far as known.
    """
    view = View()
    wanted = {write.decision_key for write in writes if write.decision_key is not None}
    made_for: set[AccountKey] = set()
    changed: set[AccountKey] = set()  # and accounts that a decision is counted in
    of_somebody: set[DecisionKey] = set()
    unknown: set[DecisionKey] = set()
    for write in writes:
        account, key = write.account_key, write.decision_key
        if account is not None:
            if isinstance(write, DecisionWrite):
                made_for.add(account)
            if not isinstance(write, DecisionWrite) or write.ration is not None:
                changed.add(account)
        elif key is not None:
            of_somebody.add(key)
            owner = owners.get(key)
            if owner is None:
                unknown.add(key)
            else:
                changed.add(owner)
    asks = [] if begun else [Ask("begin")]
    if unknown:
        found = fetch(connection, [*asks, *_asks_of_decisions("read_decisions", unknown)])
        asks = []
        changed |= {to_decision(row).key for rows in found for row in rows}
    # What comes of a decision that is made here as well.
    changed |= {
        write.account_key
        for write in writes
        if isinstance(write, DecisionWrite) and write.decision_key in of_somebody
    }
    keys = made_for | changed
    _read(connection, view, asks, writes, wanted, made_for, changed)
    if any(view.decisions[key].key not in changed for key in of_somebody & view.decisions.keys()):
        # Made in the meantime, or under an id that retention let go.
        return load(connection, writes, tombstone, {}, begun=True)
    _read_tombstones(connection, view, wanted, keys, tombstone, min(one.at_us for one in writes))
    read_tallies(connection, view, writes)
    return view


def store(connection: Connection, view: View) -> None:
    """What the group changed of generations and snapshots."""
    assert view.moved <= view.locked | view.fresh, "an account moved that is not locked"
    for generation in view.opened:
        _open(connection, generation)
    for snapshot in view.snapshots:
        _keep(connection, snapshot)


def store_rows(connection: Connection, view: View) -> None:
    """The rows that the group added or changed, a statement a table; none is waited for."""
    changed = view.decided | view.moved
    if fresh := sorted(changed & view.fresh):
        run(connection, "add_accounts", [_new_account_row(view.accounts[key]) for key in fresh])
    if moved := sorted(view.moved - view.fresh):
        run(connection, "move_accounts", [_moved_row(view.accounts[key]) for key in moved])
    if view.tallied:
        rows = [tally_row(key, view.tallies[key]) for key in sorted(view.tallied)]
        run(connection, "put_tallies", rows)
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
    if due := sorted(view.due - view.settled):
        run(connection, "add_due", [_due_row(view.decisions[key]) for key in due])
    if settled := sorted(view.settled - view.due):
        run(connection, "drop_due", [_due_row(view.decisions[key]) for key in settled])


def lock_accounts(connection: Connection, keys: Iterable[AccountKey]) -> None:
    """Locks accounts in the order in which groups of writes do."""
    fetch(connection, asks_of_accounts("lock_accounts", keys))


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
    found = fetch(connection, _asks_of_decisions("read_feedback", keys))
    return [to_feedback(row) for row in sorted(itertools.chain(*found), key=_arrival)]


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
        adaptation=AccountAdaptation(
            row.position, _rewards(row.recent_rewards), row.phase, row.adapted_at
        ),
        created_at_us=row.created_at_us,
        updated_at_us=row.updated_at_us,
        base_generation=row.base_generation,
        kept_above=row.kept_above,
    )


def to_generation(key: AccountKey, row: Row[Any]) -> Generation:
    """A change of an account's past from its row."""
    return Generation(
        key,
        row.generation,
        row.reason,
        row.position,
        row.head_position,
        row.decision_id,
        row.opened_at_us,
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
        mode=row.mode,
        activated_at_us=row.activated_at_us,
        actions_left=None if row.actions_left is None else json.loads(row.actions_left),
        deviates=None if row.deviates is None else bool(row.deviates),
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


_REWRITTEN = ("generation", "policy", "memory", "created_at_us")


def _read(
    connection: Connection,
    view: View,
    first: Sequence[Ask],
    writes: Sequence[Write],
    wanted: set[DecisionKey],
    made_for: set[AccountKey],
    changed: set[AccountKey],
) -> None:
    """Puts the accounts, the decisions and what came of them into the view."""
    others = {
        write.decision_key for write in writes if isinstance(write, FeedbackWrite | DefaultWrite)
    }
    view.locked = changed
    asks = [
        *first,
        *asks_of_accounts("hold_accounts", made_for),
        *asks_of_accounts("lock_accounts", changed),
        *asks_of_accounts("read_accounts", made_for - changed),
        *_asks_of_decisions("read_decisions", wanted),
        *_asks_of_decisions("read_feedback", others),
        Ask("any_tombstone"),
    ]
    came: list[Any] = []
    for ask, rows in zip(asks, fetch(connection, asks), strict=True):
        match ask.name:
            case "lock_accounts" | "read_accounts":
                accounts_found = map(to_account, rows)
                view.accounts.update((one.key, one) for one in accounts_found)
            case "read_decisions":
                decisions_found = map(to_decision, rows)
                view.decisions.update(
                    ((one.key.tenant, one.decision_id), one) for one in decisions_found
                )
            case "read_feedback":
                came += rows
            case "any_tombstone":
                view.tombstones = bool(rows)
    for given in map(to_feedback, sorted(came, key=_arrival)):
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
    if (fresh or unknown) and view.tombstones:
        of_decision = {tombstone("decision", *key): key for key in unknown}
        of_account = {tombstone("account", *key): key for key in fresh}
        asked = Ask("read_tombstones", sorted([*of_decision, *of_account]))
        for row in fetch(connection, [asked])[0]:
            if row.digest in of_account:
                started[of_account[row.digest]] = row.generation + 1
            else:
                view.erased.add(of_decision[row.digest])
    for key in fresh:
        generation = started.get(key, 0)
        view.accounts[key] = Account(
            key,
            Head(generation, 0),
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


def _asks_of_decisions(name: str, keys: Iterable[DecisionKey]) -> list[Ask]:
    """The read of this name for these decisions, in key order."""
    names: dict[str, list[str]] = defaultdict(list)
    for tenant, decision_id in sorted(keys):
        names[tenant].append(decision_id)
    return [Ask(name, ids, {"tenant": tenant}) for tenant, ids in names.items()]


def _feedback_order(given: Feedback) -> tuple[str, str, str, str]:
    """Rows are stored in key order, as accounts are locked."""
    return given.key.tenant, given.decision_id, given.kind, given.feedback_id


def _account_key_row(key: AccountKey) -> dict[str, Any]:
    return {"the_tenant": key.tenant, "the_workflow": key.workflow, "the_account_id": key[2]}


def _decision_key_row(key: DecisionKey) -> dict[str, Any]:
    return {"the_tenant": key[0], "the_decision_id": key[1]}


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


def _moved_row(account: Account) -> dict[str, Any]:
    return _account_key_row(account.key) | _head(account)


def _new_account_row(account: Account) -> dict[str, Any]:
    created = {**account.key._asdict(), "created_at_us": account.created_at_us}
    return created | _head(account)


def _activated_row(decision: Decision) -> dict[str, Any]:
    return _decision_key_row((decision.key.tenant, decision.decision_id)) | {
        "activated_at_us": decision.activated_at_us,
        "expires_at_us": decision.expires_at_us,
    }


def _due_row(decision: Decision) -> dict[str, Any]:
    return {
        "due_at_us": decision.expires_at_us,
        "tenant": decision.key.tenant,
        "decision_id": decision.decision_id,
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
        "asked_for": _json_or_none(decision.asked_for),
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
        "mode": decision.mode,
        "activated_at_us": decision.activated_at_us,
        "actions_left": _json_or_none(decision.actions_left),
        "deviates": decision.deviates,
    }


def _json_or_none(names: list[str] | None) -> str | None:
    return None if names is None else json.dumps(names)


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
