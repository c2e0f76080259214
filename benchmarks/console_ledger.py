"""A large ledger for the console: accounts with decisions and feedback, written as rows.

The service has made the tables; what is written is what it would have written, with histories of
very different lengths, rewards that rise with an account's age, and a hold-out on the fallback.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, MetaData, Table, create_engine, insert, text

WORKFLOW = "retention-offer"
POLICY = "universal/1"
WINDOW = 10
CHUNK = 5_000
"""Accounts written in one transaction."""
BEGAN_US = 1_790_000_000_000_000
STEP_US = 60_000_000
"""Between two decisions of an account."""
CONTEXT = {
    "plan": "basic",
    "trigger": "price",
    "usage": 0.4,
    "offers_lately": 0.0,
    "cancelled": False,
    "season_sin": 0.0,
    "season_cos": 1.0,
    "region": "north",
    "in_dispute": False,
}
TABLES = ("accounts", "decisions", "feedback")


class Filled(NamedTuple):
    """What was written."""

    accounts: int
    rows: int
    """Decisions and feedback."""
    longest: str
    """The account with the longest history."""
    longest_history: int


def lengths(accounts: int, interactions: int, seed: int) -> NDArray[np.int64]:
    """How many interactions each account has `[accounts]`: at least one, together `interactions`,
    a few very many."""
    rng = np.random.default_rng(seed)
    weights = rng.pareto(1.2, accounts) + 0.2
    extra = np.floor(weights / weights.sum() * (interactions - accounts)).astype(np.int64)
    extra[np.argmax(extra)] += interactions - accounts - extra.sum()
    sizes: NDArray[np.int64] = 1 + extra
    return sizes


def fill(
    url: str, accounts: int, interactions: int, seed: int, advance: Callable[[int], None]
) -> Filled:
    """Writes them into the ledger at `url`; the service must not run meanwhile."""
    engine = create_engine(url)
    metadata = MetaData()
    metadata.reflect(engine, only=TABLES)
    tables = metadata.tables
    sizes = lengths(accounts, interactions, seed)
    rng = np.random.default_rng([seed, 1])
    for start in range(0, accounts, CHUNK):
        some = range(start, min(start + CHUNK, accounts))
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        for number in some:
            _account(number, int(sizes[number]), rng, rows)
        with engine.begin() as connection:
            for name in TABLES:
                _write(connection, tables[name], rows[name])
        advance(len(some))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    engine.dispose()
    longest = int(np.argmax(sizes))
    return Filled(accounts, 2 * int(sizes.sum()), name_of(longest), int(sizes.max()))


def name_of(number: int) -> str:
    """An account's id; ids come in no order of time."""
    return f"customer-{(number * 7919) % 1_000_003:07}"


def _account(
    number: int, size: int, rng: np.random.Generator, rows: dict[str, list[dict[str, Any]]]
) -> None:
    name, held_out = name_of(number), number % 20 == 0
    t = np.arange(size)
    chance = 0.37 + (0.0 if held_out else 0.2) * (1 - np.exp(-t / 8))
    rewards = (rng.random(size) < chance).astype(np.float64)
    since = BEGAN_US + number * 1_000_000 + int(rng.integers(0, 1_000_000))
    adapted_at = next(
        (k + 1 for k in range(WINDOW - 1, size) if rewards[k + 1 - WINDOW : k + 1].mean() > 0.65),
        None,
    )
    key = {"tenant": "default", "workflow": WORKFLOW, "account_id": name}
    context = json.dumps(CONTEXT | {"tenure_months": number % 120})
    for k in range(size):
        at = since + k * STEP_US
        event = {**key, "decision_id": f"{name}-{k}", "generation": 0}
        rows["decisions"].append(
            {
                **event,
                "spec_version": 1,
                "policy": POLICY,
                "context": context,
                "action": "discount_10",
                "probability": 0.8,
                "draw": 0.5,
                "reason": "held_out" if held_out else "policy",
                "limits": '["discount_ceiling"]',
                "position": k,
                "request_sha256": "0" * 64,
                "created_at_us": at,
                "expires_at_us": at + 604_800_000_000,
                "mode": "serve",
            }
        )
        rows["feedback"].append(
            {
                **event,
                "kind": "received",
                "feedback_id": "",
                "position": k + 1,
                "folded_reward": rewards[k],
                "folded_end": True,
                "reward": rewards[k],
                "episode_end": True,
                "late": False,
                "received_at_us": at + 1_000_000,
                "request_sha256": "0" * 64,
            }
        )
    rows["accounts"].append(
        {
            **key,
            "generation": 0,
            "position": size,
            "phase": "adapting" if adapted_at is None else "adapted",
            "adapted_at": adapted_at,
            "recent_rewards": json.dumps(rewards[-WINDOW:].tolist()),
            "created_at_us": since,
            "updated_at_us": since + (size - 1) * STEP_US + 1_000_000,
            "base_generation": 0,
            "kept_above": 0,
        }
    )


def _write(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if connection.dialect.name != "postgresql":
        connection.execute(insert(table), rows)
        return
    names = list(rows[0])
    driver: Any = connection.connection.driver_connection
    with (
        driver.cursor() as cursor,
        cursor.copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy,
    ):
        for values in _tuples(rows, names):
            copy.write_row(values)


def _tuples(rows: list[dict[str, Any]], names: list[str]) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        yield tuple(row[name] for name in names)
