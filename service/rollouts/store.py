"""Rollouts in the ledger: read, begun, changed by compare-and-set, every change with who and why.

Functions of a connection, for `Ledger.read` and `Ledger.alone`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from guardrails.rollouts.schedule import parse_schedule
from service.ledger.rollout_tables import (
    operator_audit,
    policies,
    rollout_transitions,
    rollouts,
)
from service.rollouts.records import (
    EVALUATOR,
    Action,
    RefusedError,
    Rollout,
    Transition,
    changed,
    standing,
)

_LOCK = 0x41434C52
"""Which of PostgreSQL's advisory locks changes of rollouts take turns by."""


class Event(NamedTuple):
    """Something that an operator did."""

    event_id: str
    at_us: int
    actor: str
    action: str
    subject: str
    reason: str


class Network(NamedTuple):
    """What a policy's name stands for."""

    policy: str
    decide_sha256: str
    learn_sha256: str


def read_rollouts(
    connection: Connection, workflow: str | None = None, rollout_id: str | None = None
) -> list[Rollout]:
    """Rollouts, oldest first."""
    query = select(rollouts).order_by(rollouts.c.created_at_us, rollouts.c.rollout_id)
    if workflow is not None:
        query = query.where(rollouts.c.workflow == workflow)
    if rollout_id is not None:
        query = query.where(rollouts.c.rollout_id == rollout_id)
    return [_rollout(row) for row in connection.execute(query)]


def read_transitions(connection: Connection, rollout_id: str) -> list[Transition]:
    """A rollout's transitions, oldest first."""
    columns = rollout_transitions.c
    query = select(rollout_transitions).where(columns.rollout_id == rollout_id)
    return [Transition(*row) for row in connection.execute(query.order_by(columns.revision))]


def read_audit(connection: Connection, limit: int) -> list[Event]:
    """What operators did last, newest first."""
    columns = operator_audit.c
    query = select(operator_audit).order_by(columns.at_us.desc(), columns.event_id).limit(limit)
    return [Event(*row) for row in connection.execute(query)]


def begin(connection: Connection, rollout: Rollout, network: Network) -> Rollout:
    """Records a new rollout. Raises RefusedError where one is on its way on this workflow, or where
    the policy's name stood for another network before."""
    one_at_a_time(connection)
    others = read_rollouts(connection, rollout.workflow)
    for one in standing(others, rollout.file_policy):
        if one.is_active:
            raise RefusedError(
                "workflow", f"one without a rollout on its way, got {one.rollout_id} of "
                f"{one.policy}, {one.status} at {one.current.percent:g} %",
            )  # fmt: skip
    known = connection.execute(select(policies).where(policies.c.policy == network.policy)).first()
    if known is None:
        row = {**network._asdict(), "first_seen_at_us": rollout.created_at_us}
        connection.execute(insert(policies).values(row))
    elif (known.decide_sha256, known.learn_sha256) != network[1:]:
        raise RefusedError(
            "policy", f"the network that {network.policy} was first rolled out as; a new one needs "
            "a new version",
        )  # fmt: skip
    if others:  # whatever the clocks of two processes say, it is the last
        begun = max(rollout.created_at_us, others[-1].created_at_us + 1)
        rollout = rollout._replace(created_at_us=begun, stage_since_us=begun)
    row = {**rollout._asdict(), "schedule": rollout.schedule.canonical}
    connection.execute(insert(rollouts).values(row))
    _record(connection, rollout, "create", rollout.created_by, rollout.created_at_us, "{}")
    return rollout


def change(
    connection: Connection,
    rollout_id: str,
    action: Action,
    actor: str,
    why: str,
    now_us: int,
    *,
    expected: int | None = None,
    evidence: str = "{}",
    waits_for_approval: bool = False,
) -> Rollout | None:
    """The rollout after the action, recorded with who and why; None where it is not at the
    `expected` revision any more. Raises RefusedError."""
    one_at_a_time(connection)
    found = read_rollouts(connection, rollout_id=rollout_id)
    if not found:
        raise RefusedError("rollout_id", "the id of a rollout")
    before = found[0]
    if expected is not None and before.revision != expected:
        return None
    if action == "roll_back":
        _refuse_unless_last(connection, before)
    after = changed(before, action, why, now_us, waits_for_approval=waits_for_approval)
    values = after._asdict()
    del values["schedule"]
    own = (rollouts.c.rollout_id == rollout_id) & (rollouts.c.revision == before.revision)
    connection.execute(update(rollouts).where(own).values(values))
    _record(connection, after, action, actor, now_us, evidence)
    return after


def audit(connection: Connection, events: Sequence[Event]) -> None:
    """Records what operators did, once, however often it is recorded."""
    add = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    for event in events:
        connection.execute(add(operator_audit).values(event._asdict()).on_conflict_do_nothing())


def event_of(actor: str, action: str, subject: str, why: str, at_us: int) -> Event:
    """A new event."""
    return Event(secrets.token_hex(16), at_us, actor[:128], action, subject[:128], why)


def standing_above(connection: Connection, rollout: Rollout) -> list[Rollout]:
    """Those that stand and were begun after this one, the last first."""
    stand = standing(read_rollouts(connection, rollout.workflow), rollout.file_policy)
    ids = [one.rollout_id for one in stand]
    own = ids.index(rollout.rollout_id) if rollout.rollout_id in ids else -1
    return stand[own + 1 :][::-1]


def _refuse_unless_last(connection: Connection, rollout: Rollout) -> None:
    for one in standing_above(connection, rollout)[:1]:
        raise RefusedError(
            "rollout_id", f"the last that stands, {one.rollout_id} of {one.policy}: what was begun "
            "last is taken back first",
        )  # fmt: skip


def _record(
    connection: Connection, rollout: Rollout, action: Action, actor: str, at_us: int, evidence: str
) -> None:
    transition = Transition(
        rollout.rollout_id,
        rollout.revision,
        at_us,
        actor[:128],
        action,
        rollout.status,
        rollout.stage,
        rollout.reason,
        evidence,
    )
    connection.execute(insert(rollout_transitions).values(transition._asdict()))
    if actor != EVALUATOR:
        subject = f"rollout {rollout.rollout_id}"
        audit(connection, [event_of(actor, action, subject, rollout.reason, at_us)])


def one_at_a_time(connection: Connection) -> None:
    """Until this transaction ends, nobody else changes a rollout or its evidence. SQLite's writers
    already are one at a time."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _rollout(row: Row[Any]) -> Rollout:
    values = dict(row._mapping)
    values["schedule"] = parse_schedule(json.loads(row.schedule))
    values["approved"] = bool(row.approved)
    return Rollout(**values)
