"""What an account costs in production: latency and bytes, with more and more memories in Redis.

Every account is filled by real traffic, a decision and its feedback, so that each has a memory. The
workflow has eight actions here. Before each measurement PostgreSQL finishes its vacuum and
checkpoint, and Redis its rewrite: what is compared are the counts, not the wake of filling.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from benchmarks.serving_batch import BATCH, offers_batches, play_once
from benchmarks.serving_load import Window
from benchmarks.serving_payload import WORKFLOW, Decisions, drawn
from benchmarks.serving_rounds import Client, take_turns
from benchmarks.serving_systems import Servers, ServingError, System

ACTIONS = 8
SAMPLE = 1_000
"""Memories whose size is asked for one by one."""
CHUNK = 100 * BATCH
"""Accounts filled between two looks at the progress."""
SETTLE_SECONDS = 120.0

Advance = Callable[[int], None]
"""Told how many more accounts are filled."""


@contextmanager
def eight_actions(workflows: Path) -> Iterator[Path]:
    """A folder with the benchmark's workflow alone, its actions filled up to eight."""
    spec = yaml.safe_load((workflows / f"{WORKFLOW}.yaml").read_text(encoding="utf-8"))
    filler = spec["actions"][-1]
    spec["actions"] += [
        filler | {"id": f"offer_{number}"} for number in range(len(spec["actions"]), ACTIONS)
    ]
    with TemporaryDirectory(prefix="acclimate-bench-") as folder:
        Path(folder, f"{WORKFLOW}.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
        yield Path(folder)


def account_costs(
    client: Client,
    echo: System,
    service: System,
    servers: Servers,
    ledger_url: str,
    counts: Sequence[int],
    rounds: int,
    advance: Advance,
) -> list[dict[str, Any]]:
    """One entry for each count, smallest first. The service is fresh and its Redis empty."""
    batches = offers_batches(service)
    empty_bytes = _used_bytes(servers)
    costs: list[dict[str, Any]] = []
    filled = 0
    for count in sorted(counts):
        started = time.monotonic()
        for first in range(filled, count, CHUNK):
            chunk = range(first, min(first + CHUNK, count))
            play_once(client, service, chunk, batches)
            advance(len(chunk))
        seconds = time.monotonic() - started
        _settle(servers, ledger_url)
        used_bytes = _used_bytes(servers) - empty_bytes
        sizes = _sizes(servers, count)
        turns = take_turns([echo, service], rounds, partial(_decide, client, count))
        windows = turns[service.name]
        costs.append(
            {
                "count": count,
                "p50_ms": median(window.percentile_ms(50) for window in windows),
                "p99_ms": median(window.percentile_ms(99) for window in windows),
                "rps": median(window.rps for window in windows),
                "echo_p99_ms": median(window.percentile_ms(99) for window in turns[echo.name]),
                "bytes": used_bytes / count,
                "bytes_of_key_and_value": fmean(sizes),
                "actions": ACTIONS,
                "fallback_share": service.fallback_share(),
                "filled_per_s": (count - filled) / seconds if count > filled else None,
            }
        )
        filled = count
    return costs


def _decide(client: Client, accounts: int, system: System) -> Window:
    return client.measure(system, Decisions(drawn(accounts)))


def _settle(servers: Servers, ledger_url: str) -> None:
    servers.sql(ledger_url, "VACUUM (ANALYZE)")
    servers.sql(ledger_url, "CHECKPOINT")
    give_up_at = time.monotonic() + SETTLE_SECONDS
    while servers.redis_info()["aof_rewrite_in_progress"]:
        if time.monotonic() > give_up_at:
            raise ServingError(f"Redis still rewrites its log after {SETTLE_SECONDS:g} s")
        time.sleep(0.2)


def _used_bytes(servers: Servers) -> int:
    return int(servers.redis_info()["used_memory"])


def _sizes(servers: Servers, count: int) -> list[int]:
    """MEMORY USAGE of some keys. Raises ServingError unless there is a memory for each account."""
    from tests.redis_server import redis_client

    with redis_client(servers.redis.url) as client:
        held = client.dbsize()
        if held < count:
            raise ServingError(f"expected a memory in Redis for each of {count} accounts: {held}")
        keys = (client.randomkey() for _ in range(min(SAMPLE, count)))
        return [int(client.memory_usage(key) or 0) for key in keys if key is not None]
