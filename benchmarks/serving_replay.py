"""How fast memories are rebuilt from the ledger, in interactions a second of one process.

A few accounts are played for long. Each is then rebuilt by the endpoint for that, one after
another; a service without one loses its memories in a restart, and the next decision of each
account waits for its replay.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.serving_batch import offers_batches, play_once
from benchmarks.serving_payload import WORKFLOW, Decisions, account_id
from benchmarks.serving_rounds import Client
from benchmarks.serving_systems import ServingError, System

ACCOUNTS = 8
AT_A_TIME = 256
"""Decisions of one account under way at any time while it is played."""
REBUILD = f"/v1/workflows/{WORKFLOW}/accounts/{{account_id}}/rebuild"
REBUILDS = "acclimate_memory_rebuilds_total"

Advance = Callable[[int], None]
"""Told how many more interactions are played."""


def replay_rate(
    client: Client, system: System, interactions: int, advance: Advance
) -> dict[str, Any]:
    """Plays and rebuilds. `interactions` are an account's."""
    batches = offers_batches(system)
    for played in range(0, interactions, AT_A_TIME):
        more = min(AT_A_TIME, interactions - played)
        for account in range(ACCOUNTS):
            play_once(client, system, [account] * more, batches)
            advance(more)
    how = _by_endpoint if system.offers(REBUILD.format(account_id="any")) else _by_restart
    rebuilt, seconds = how(client, system, interactions)
    return {
        "interactions_per_s": rebuilt / seconds,
        "accounts": ACCOUNTS,
        "interactions_of_each": interactions,
        "by": "the rebuild endpoint" if how is _by_endpoint else "the next decision",
    }


def _by_endpoint(_: Client, system: System, interactions: int) -> tuple[int, float]:
    """Interactions replayed, and the seconds they took."""
    rebuilt, started = 0, time.perf_counter()
    for account in range(ACCOUNTS):
        answer = system.post(REBUILD.format(account_id=account_id(account)))
        rebuilt += int(answer["interactions"])
    seconds = time.perf_counter() - started
    if rebuilt == 0:
        raise ServingError(f"expected {interactions} interactions an account to be replayed: none")
    return rebuilt, seconds


def _by_restart(client: Client, system: System, interactions: int) -> tuple[int, float]:
    """Interactions replayed, and the seconds that the decisions took which waited for them."""
    system.restart()
    before = system.counted(REBUILDS)
    window = client.send_all(system, Decisions(range(ACCOUNTS)), connections=1)
    rebuilt = system.counted(REBUILDS) - before
    if rebuilt != ACCOUNTS:
        raise ServingError(f"expected {ACCOUNTS} memories to be rebuilt, got {rebuilt:g}")
    return ACCOUNTS * interactions, window.seconds
