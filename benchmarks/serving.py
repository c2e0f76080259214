"""The serving benchmark: the service beside a bare echo, on this machine, in one run.

Everything is measured from outside, over HTTP, with 32 connections that wait for their answers. The
parts are `echo`, `embedded`, `production`, `batch`, `replay` and `accounts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from benchmarks.serving_accounts import account_costs, eight_actions
from benchmarks.serving_batch import batch_rate, offers_batches
from benchmarks.serving_machine import Cores, describe, shared_out
from benchmarks.serving_payload import Decisions, drawn
from benchmarks.serving_replay import ACCOUNTS as REPLAYED_ACCOUNTS
from benchmarks.serving_replay import replay_rate
from benchmarks.serving_rounds import Client, compared, decide_and_learn, take_turns
from benchmarks.serving_systems import (
    Servers,
    System,
    running_echo,
    running_embedded,
    running_production,
    running_servers,
)

PARTS = ("echo", "embedded", "production", "batch", "replay", "accounts")
MOST_ACCOUNTS = 10**9 - 1
"""Their numbers have nine digits."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and for how long."""

    parts: Sequence[str] = PARTS
    workflows: Path = Path("benchmarks/workflows")
    policies: Path = Path("policies")
    rounds: int = 3
    seconds: float = 5.0
    """Of one window: one kind of request to one system, in one round."""
    warm_up_seconds: float = 1.0
    connections: int = 32
    drawn_from: int = 1_000
    """Accounts that the requests of all parts but `accounts` are for."""
    counts: Sequence[int] = (1_000, 100_000, 1_000_000)
    replay_interactions: int = 2_000
    """Of each replayed account."""


def quick(settings: Settings) -> Settings:
    """The same for a moment: whether it runs, not how fast."""
    return replace(
        settings,
        rounds=1,
        seconds=0.5,
        warm_up_seconds=0.1,
        drawn_from=200,
        counts=(200,),
        replay_interactions=50,
    )


class Progress(Protocol):
    """What the benchmark tells whoever watches."""

    def status(self, text: str) -> None: ...
    def expect(self, stage: str, steps: int) -> None: ...
    def advance(self, stage: str, steps: int = 1) -> None: ...


def run(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Every figure, as it goes to JSON; None where a part was not asked for or the service has no
    such endpoint. Raises ServingError, ServiceError, LoadError."""
    return _Benchmark(settings, progress).run()


class _Benchmark:
    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._cores: Cores = shared_out()
        self._client = Client(
            self._cores, settings.connections, settings.warm_up_seconds, settings.seconds
        )
        self._result: dict[str, Any] = {
            "echo": None,
            "echo_feedback": None,
            "embedded": None,
            "production": None,
            "batch": None,
            "accounts": None,
            "replay": None,
            "client": None,
            "durability": {},
        }

    def run(self) -> dict[str, Any]:
        settings, result = self._settings, self._result
        result["machine"] = describe(self._cores)
        with ExitStack() as stack:
            servers = None
            if self._asked("production", "accounts"):
                self._progress.status("starting Redis and PostgreSQL")
                servers = stack.enter_context(running_servers(self._cores))
                result["machine"] |= servers.versions()
            result["client"] = self._client_alone()
            if self._asked("echo", "embedded", "production"):
                self._compare(servers)
            if self._asked("batch"):
                self._batch()
            if self._asked("replay"):
                self._replay()
            if self._asked("accounts"):
                assert servers is not None
                self._accounts(servers)
        return result | {
            "date": datetime.now(UTC).date().isoformat(),
            "connections": settings.connections,
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "warm_up_seconds": settings.warm_up_seconds,
        }

    def _asked(self, *parts: str) -> bool:
        return not set(parts).isdisjoint(self._settings.parts)

    def _client_alone(self) -> dict[str, Any]:
        """What the client does against a server that only answers: above this it is blind."""
        self._progress.status("the client against a server that does nothing")
        with running_echo(self._cores.systems, "--nothing") as nothing:
            window = self._client.measure(nothing, Decisions(drawn(self._settings.drawn_from)))
        return {"rps": window.rps, "p99_ms": window.percentile_ms(99)}

    def _compare(self, servers: Servers | None) -> None:
        """The echo and the services take turns."""
        settings, result = self._settings, self._result
        with ExitStack() as stack:
            systems = [stack.enter_context(running_echo(self._cores.systems))]
            if self._asked("embedded"):
                systems.append(stack.enter_context(self._embedded(self._cores.systems)))
            if self._asked("production"):
                assert servers is not None
                service, _ = stack.enter_context(self._production(servers, settings.workflows))
                systems.append(service)
            self._progress.expect("rounds", settings.rounds * len(systems))

            def measure(system: System) -> Any:
                turn = decide_and_learn(self._client, system, settings.drawn_from)
                self._progress.advance("rounds")
                return turn

            result |= compared(take_turns(systems, settings.rounds, measure))
            for system in systems[1:]:
                of_system = result[system.name]
                of_system["fallback_share"] = system.fallback_share()
                # Of the time that a decision takes of a service with nothing else to do.
                of_system["guardrail_share"] = system.guardrail_seconds() * of_system["rps"]

    def _batch(self) -> None:
        settings = self._settings
        with self._embedded(self._cores.one) as service:
            if not offers_batches(service):
                self._progress.status("batch: the service has no batch endpoints")
                return
            self._progress.status("batches, the service on one core")
            rate = batch_rate(self._client, service, settings.drawn_from, settings.rounds)
            self._result["batch"] = rate | {"fallback_share": service.fallback_share()}

    def _replay(self) -> None:
        interactions = self._settings.replay_interactions
        with self._embedded(self._cores.one) as service:
            self._progress.expect("replay", interactions * REPLAYED_ACCOUNTS)
            advance = partial(self._progress.advance, "replay")
            self._result["replay"] = replay_rate(self._client, service, interactions, advance)

    def _accounts(self, servers: Servers) -> None:
        settings = self._settings
        servers.redis.flush()
        with (
            eight_actions(settings.workflows) as workflows,
            running_echo(self._cores.systems) as echo,
            self._production(servers, workflows) as (service, ledger_url),
        ):
            self._progress.expect("accounts", max(settings.counts))
            costs = account_costs(
                self._client,
                echo,
                service,
                servers,
                ledger_url,
                settings.counts,
                settings.rounds,
                partial(self._progress.advance, "accounts"),
            )
            self._result["accounts"] = costs

    @contextmanager
    def _embedded(self, cores: frozenset[int]) -> Iterator[System]:
        settings = self._settings
        with running_embedded(cores, settings.workflows, settings.policies) as (service, how):
            self._result["durability"] |= how
            yield service

    @contextmanager
    def _production(self, servers: Servers, workflows: Path) -> Iterator[tuple[System, str]]:
        """A fresh ledger's address goes with the service."""
        with (
            servers.new_ledger() as ledger_url,
            running_production(
                self._cores.systems, servers, ledger_url, workflows, self._settings.policies
            ) as (service, how),
        ):
            self._result["durability"] |= how
            yield service, ledger_url
