"""What must be true of every ledger and its memories, whatever happened: read from the ledger."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, Table, select, text

from contract.encode import check_context
from service.ledger.records import Account, AccountKey, Decision
from service.ledger.rows import to_account, to_decision
from service.ledger.tables import (
    accounts,
    decisions,
    defaults_due,
    feedback,
    generations,
    snapshots,
)
from service.memory.codec import account_name, decode
from service.memory.store import StoredMemory
from service.runtime import Service
from tests.e2e.events import Events

Rows = list[Row[Any]]


async def everything(service: Service, events: Events) -> None:
    """All of the below."""
    await nothing_is_lost(service, events)
    await nothing_is_half_done(service)
    await nothing_dangles(service)
    await decisions_follow_from_their_past(service)
    await snapshots_are_replays(service)


async def nothing_is_lost(service: Service, events: Events) -> None:
    """Whatever was acknowledged is in the ledger as it was answered."""
    for decision_id, told in events.decisions.items():
        decision = await service.ledger.decision("default", decision_id)
        assert decision is not None, f"decision {decision_id} is lost"
        assert decision.head is not None
        kept = (decision.action, decision.probability, *decision.head)
        names = ("action", "probability", "memory_generation", "memory_position")
        assert kept == tuple(told[name] for name in names)
    for (decision_id, feedback_id), told in events.feedback.items():
        came = await service.ledger.feedback("default", decision_id)
        (given,) = [one for one in came if (one.kind, one.feedback_id) == ("received", feedback_id)]
        place = given.head.position if given.head else None
        assert (given.reward, place) == (told["reward"], told["memory_position"])


async def nothing_is_half_done(service: Service) -> None:
    """Heads, counts and windows are those of the events: positions and generations have no gap."""
    for one in await all_accounts(service):
        account, made, came, opened = await _at_one_moment(
            service, one.key, decisions, feedback, generations
        )
        assert sorted(row.generation for row in opened) == list(
            range(1, account.head.generation + 1)
        )
        folded = [row for row in came if row.position is not None]
        folded.sort(key=lambda row: (row.generation, row.position))
        rewards = {
            row.position: row.folded_reward
            for row in folded
            if row.generation >= account.base_generation
        }
        assert sorted(rewards) == list(range(1, account.head.position + 1))
        recent = account.adaptation.recent
        in_order = [rewards[position] for position in sorted(rewards)]
        assert list(recent) == in_order[len(in_order) - len(recent) :]
        for row in made:
            assert (row.generation, row.position) <= account.head


async def nothing_dangles(service: Service) -> None:
    """Whatever names a decision or an account names one that is there, and a default is due for
    exactly the active decisions that one is declared for and that nothing is folded for."""

    def read(connection: Connection) -> tuple[Rows, ...]:
        tables = accounts, decisions, feedback, defaults_due
        return tuple(list(connection.execute(select(table)).all()) for table in tables)

    known, made, came, due = await service.ledger.read(read)
    names = {(row.tenant, row.workflow, row.account_id) for row in known}
    assert {(row.tenant, row.workflow, row.account_id) for row in made} <= names
    assert {(row.tenant, row.decision_id) for row in came} <= {
        (row.tenant, row.decision_id) for row in made
    }
    folded = {(row.tenant, row.decision_id) for row in came if row.position is not None}
    expected = {
        (row.expires_at_us, row.tenant, row.decision_id)
        for row in made
        if (row.mode == "serve" or row.activated_at_us is not None)
        and (row.tenant, row.decision_id) not in folded
        and service.catalog.spec(row.workflow, row.spec_version).feedback.default_reward is not None
    }
    assert {tuple(row) for row in due} == expected


async def decisions_follow_from_their_past(service: Service) -> None:
    """The policy's probability of every decision is that of the memory replayed to its head."""
    query = select(decisions).where(decisions.c.reason == "policy")
    for row in await service.ledger.read(lambda connection: connection.execute(query).all()):
        decision = to_decision(row)
        expected = await probability(service, decision)
        assert abs(decision.probability - expected) < 1e-5, decision.decision_id


async def probability(service: Service, decision: Decision) -> float:
    """Of the served action, from the ledger alone."""
    workflow = service.catalog.workflows[decision.key.workflow]
    replayed = await service.recall.fresh(workflow, decision.key, decision.head)
    assert replayed.memory.head == decision.head
    context, _ = check_context(workflow.spec, decision.context)
    mask = workflow.limits.allow(context, decision.asked_for).mask
    probabilities = workflow.probabilities([replayed.memory], [context], mask[None])
    return float(probabilities[0, workflow.spec.action_ids.index(decision.action)])


async def snapshots_are_replays(service: Service) -> None:
    """Every memory that is kept in the ledger is a prefix of its account's past, bit for bit."""
    for account in await all_accounts(service):
        workflow = service.catalog.workflows[account.key.workflow]
        account, rows = await _at_one_moment(service, account.key, snapshots)
        for row in rows:
            kept = decode(row.memory, workflow.policy.identity, account_name(account.key))
            head = account.head._replace(position=row.position)
            replayed = await service.recall.fresh(workflow, account.key, head)
            assert _bytes(kept) == _bytes(replayed.memory)


async def memories_equal_their_replays(
    service: Service, *, within_seconds: float = 5.0, all_stored: bool = False
) -> None:
    """In time, every stored memory is at its account's head and its replay, bit for bit;
    `all_stored`: and there is one for every account."""
    deadline = time.monotonic() + within_seconds
    while off := await _off(service, all_stored):
        assert time.monotonic() < deadline, f"not the fold of their past: {off}"
        await asyncio.sleep(0.02)


async def _off(service: Service, all_stored: bool) -> list[AccountKey]:
    off = []
    for account in await all_accounts(service):
        workflow = service.catalog.workflows[account.key.workflow]
        stored = await service.memories.get(account.key, workflow.policy.identity, keep_alive=False)
        if stored is None:
            if all_stored:
                off.append(account.key)
            continue
        replayed = await service.recall.fresh(workflow, account.key)
        if stored.head != account.head or _bytes(stored) != _bytes(replayed.memory):
            off.append(account.key)
    return off


async def all_accounts(service: Service) -> list[Account]:
    """Every account in the ledger."""
    rows = await service.ledger.read(lambda connection: connection.execute(select(accounts)).all())
    return [to_account(row) for row in rows]


async def _at_one_moment(service: Service, key: AccountKey, *tables: Table) -> Any:
    """The account, and its rows of each table, as they are together."""

    def rows(connection: Connection, table: Table) -> Rows:
        columns = table.c
        query = select(table).where(
            columns.tenant == key.tenant,
            columns.workflow == key.workflow,
            columns.account_id == key.account_id,
        )
        return list(connection.execute(query).all())

    def read(connection: Connection) -> tuple[Any, ...]:
        if connection.dialect.name == "postgresql":  # SQLite reads so anyhow
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        (account,) = rows(connection, accounts)
        return to_account(account), *(rows(connection, table) for table in tables)

    return await service.ledger.read(read)


def _bytes(stored: StoredMemory) -> tuple[bytes, ...]:
    return tuple(np.asarray(part, "<f4").tobytes() for part in stored.memory)
