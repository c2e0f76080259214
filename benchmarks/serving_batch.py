"""The batch endpoints: decisions a second from one core, and the quick way to fill accounts."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.serving_payload import (
    DECISION_BATCH,
    FEEDBACK_BATCH,
    DecisionBatches,
    Decisions,
    FeedbackBatches,
    FeedbackOf,
    all_served,
    drawn,
)
from benchmarks.serving_rounds import Client
from benchmarks.serving_systems import System

BATCH = 256
CONNECTIONS = 4
"""Batches under way at any time: one is read and answered while another is committed."""


def offers_batches(system: System) -> bool:
    """Whether the service has both batch endpoints."""
    return system.offers(DECISION_BATCH.decode()) and system.offers(FEEDBACK_BATCH.decode())


def batch_rate(client: Client, system: System, accounts: int, rounds: int) -> dict[str, Any]:
    """Decisions, then feedback a second in batches, for accounts drawn uniformly: the median
    round's."""
    decisions, feedback = [], []
    for _ in range(rounds):
        asking = DecisionBatches(drawn(accounts), BATCH)
        window = client.measure(system, asking, CONNECTIONS, all_served)
        decisions.append(window)
        telling = FeedbackBatches(asking.asked, BATCH)
        feedback.append(client.measure(system, telling, CONNECTIONS, all_served))
    rates = [BATCH * window.rps for window in decisions]
    return {
        "decisions_per_s": median(rates),
        "feedback_per_s": median(BATCH * window.rps for window in feedback),
        "batch": BATCH,
        "connections": CONNECTIONS,
        "service_cores": 1,
        "p50_ms": median(window.percentile_ms(50) for window in decisions),
        "p99_ms": median(window.percentile_ms(99) for window in decisions),
        "decisions_per_s_min": min(rates),
        "decisions_per_s_max": max(rates),
    }


def play_once(client: Client, system: System, accounts: Sequence[int], batches: bool) -> None:
    """One interaction of each of these accounts, by batches where the service has them."""
    if batches:
        many = DecisionBatches(accounts, BATCH)
        client.send_all(system, many, CONNECTIONS, all_served)
        client.send_all(system, FeedbackBatches(many.asked, BATCH), CONNECTIONS, all_served)
    else:
        one_by_one = Decisions(accounts)
        client.send_all(system, one_by_one, client.connections)
        client.send_all(system, FeedbackOf(one_by_one.asked), client.connections)
