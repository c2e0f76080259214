"""Tallies as rows: read under their accounts' locks, and counted again from the decisions where the
workflow has come to ask for more than they know.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, func, or_, select

from guardrails.conservative import Spent
from guardrails.tally import Needs, Tally, counted, covers, longest, together
from service.ledger.rations import Counted
from service.ledger.records import AccountKey
from service.ledger.settle import (
    ActivateWrite,
    DecisionWrite,
    DefaultWrite,
    FeedbackWrite,
    Write,
)
from service.ledger.statements import asks_of_accounts, fetch
from service.ledger.tables import decisions, of_account
from service.ledger.view import View, tally_key


def read_tallies(connection: Connection, view: View, writes: Sequence[Write]) -> None:
    """Puts the tallies of accounts that something is counted in into the view, each knowing all
    that it has to."""
    wanted: dict[AccountKey, Needs] = {}
    shared: set[AccountKey] = set()
    for write in writes:
        key, counted_by = _counts(view, write)
        if key is None:
            continue
        needs = {} if counted_by is None else counted_by.needs
        wanted[key] = together(wanted.get(key, {}), needs)
        shared |= {tally_key(scope, key) for scope in (counted_by.scopes if counted_by else ())}
    if not wanted:
        return
    assert wanted.keys() <= view.locked, "an account is counted in that is not locked"
    there = wanted.keys() - view.fresh
    for rows in fetch(connection, asks_of_accounts("read_tallies", there)):
        view.tallies.update((_key(row), to_tally(row.body)) for row in rows)
    for rows in fetch(connection, asks_of_accounts("claim_tallies", shared)):
        view.tallies.update((_key(row), to_tally(row.body)) for row in rows)
    now_us = max(write.at_us for write in writes)
    for key, needs in wanted.items():
        tally = view.tallies.get(key, Tally())
        if not covers(tally, needs):
            since_us = now_us - longest(tally, needs)
            served = []
            if key not in view.fresh:
                served = _served(connection, key, since_us)
                view.tallied.add(key)
            tally = counted(tally, needs, served)
        view.tallies[key] = tally


def to_tally(body: str) -> Tally:
    """A tally from its column."""
    stored = json.loads(body)
    return Tally(
        {action: tuple(times) for action, times in stored.get("uses", {}).items()},
        _needs(json.dumps(stored.get("kept", {}))),
        tuple((end_us, count) for end_us, count in stored.get("explored", ())),
        Spent(*stored.get("spent", ())),
    )


def tally_row(key: AccountKey, tally: Tally) -> dict[str, Any]:
    """A tally as its row."""
    body: dict[str, Any] = {"uses": dict(tally.uses), "kept": dict(tally.kept)}
    body |= {"explored": tally.explored, "spent": tally.spent}
    body = {name: value for name, value in body.items() if value != _NOTHING[name]}
    return {**key._asdict(), "body": json.dumps(body, separators=(",", ":"))}


_NOTHING = {"uses": {}, "kept": {}, "explored": (), "spent": Spent()}


@lru_cache(maxsize=1_000)
def _needs(text: str) -> Needs:
    return {action: (most, window) for action, (most, window) in json.loads(text).items()}


def _counts(view: View, write: Write) -> tuple[AccountKey | None, Counted | None]:
    """The account that a write counts in, if it does, and what it counts; feedback counts what a
    deviation has earned."""
    if isinstance(write, DecisionWrite):
        return (None if write.ration is None else write.account_key), write.ration
    decision = None if write.decision_key is None else view.decisions.get(write.decision_key)
    if decision is None:
        return None, None
    if isinstance(write, ActivateWrite) and not decision.active:
        permit = write.permit_of(decision)
        return (None if permit is None else decision.key), permit
    if isinstance(write, FeedbackWrite | DefaultWrite) and decision.deviates:
        return decision.key, None
    return None, None


def _key(row: Any) -> AccountKey:
    return AccountKey(row.tenant, row.workflow, row.account_id)


def _served(connection: Connection, key: AccountKey, since_us: int) -> list[tuple[str, int]]:
    """What an account was served since, and when: a deferred decision when it was activated."""
    columns = decisions.c
    served_at = func.coalesce(columns.activated_at_us, columns.created_at_us)
    query = select(columns.action, served_at).where(
        *of_account(decisions, key),
        or_(columns.mode == "serve", columns.activated_at_us.is_not(None)),
        served_at > since_us,
    )
    return [(action, at_us) for action, at_us in connection.execute(query)]
