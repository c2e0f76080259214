"""Tallies as rows: read under their accounts' locks, and counted again from the decisions where the
workflow has come to ask for more than they know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, func, or_, select

from guardrails.tally import Needs, Tally, counted, covers, longest, together
from service.ledger.records import AccountKey
from service.ledger.settle import ActivateWrite, DecisionWrite, Write
from service.ledger.statements import asks_of_accounts, fetch
from service.ledger.tables import decisions, of_account
from service.ledger.view import View


def read_tallies(connection: Connection, view: View, writes: Sequence[Write]) -> None:
    """Puts the tallies of accounts that something is counted in into the view, each knowing all
    that it has to."""
    wanted: dict[AccountKey, Needs] = {}
    for write in writes:
        for key, needs in _needed(view, write).items():
            wanted[key] = together(wanted.get(key, {}), needs)
    if not wanted:
        return
    assert wanted.keys() <= view.locked, "an account is counted in that is not locked"
    there = wanted.keys() - view.fresh
    for rows in fetch(connection, asks_of_accounts("read_tallies", there)):
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
        {action: tuple(times) for action, times in stored["uses"].items()},
        _needs(json.dumps(stored["kept"])),
    )


def tally_row(key: AccountKey, tally: Tally) -> dict[str, Any]:
    """A tally as its row."""
    body = {"uses": dict(tally.uses), "kept": dict(tally.kept)}
    return {**key._asdict(), "body": json.dumps(body, separators=(",", ":"))}


@lru_cache(maxsize=1_000)
def _needs(text: str) -> Needs:
    return {action: (most, window) for action, (most, window) in json.loads(text).items()}


def _needed(view: View, write: Write) -> Mapping[AccountKey, Needs]:
    """The account that a write counts in, and what its tally must know for that."""
    if isinstance(write, DecisionWrite):
        return {} if write.ration is None else {write.account_key: write.ration.needs}
    if isinstance(write, ActivateWrite):
        decision = view.decisions.get(write.decision_key)
        if decision is not None and not decision.active:
            permit = write.permit_of(decision)
            return {} if permit is None else {decision.key: permit.needs}
    return {}


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
