"""Rounds: the systems take turns, so that what else the machine does hits all of them alike.

While one is measured the others are frozen. A figure is the median over rounds; a ratio is the
median over rounds of the ratios to the echo of the same round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple, TypeVar

import uvloop

from benchmarks.serving_load import Check, NextRequest, Window, closed_loop
from benchmarks.serving_machine import Cores, on_cores
from benchmarks.serving_payload import Decisions, FeedbackOf, drawn
from benchmarks.serving_systems import System

T = TypeVar("T")


@dataclass(frozen=True)
class Client:
    """The load generator, on its own cores."""

    cores: Cores
    connections: int
    warm_up_seconds: float
    seconds: float

    def measure(
        self,
        system: System,
        requests: NextRequest,
        connections: int | None = None,
        check: Check | None = None,
    ) -> Window:
        """A window after a warm-up on the same connections. Raises LoadError."""
        times = {"seconds": self.seconds, "warm_up_seconds": self.warm_up_seconds}
        return self._loop(system, requests, connections or self.connections, check, **times)

    def send_all(
        self,
        system: System,
        requests: NextRequest,
        connections: int,
        check: Check | None = None,
    ) -> Window:
        """Every request there is, as fast as the answers come. Raises LoadError."""
        return self._loop(system, requests, connections, check)

    def _loop(
        self,
        system: System,
        requests: NextRequest,
        connections: int,
        check: Check | None,
        **times: float,
    ) -> Window:
        with (
            on_cores(self.cores.client),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(
                closed_loop(system.port, requests, connections=connections, check=check, **times)
            )


def take_turns(
    systems: Sequence[System], rounds: int, measure: Callable[[System], T]
) -> dict[str, list[T]]:
    """What was measured on each system, by its name; every other round goes the other way
    round."""
    taken: dict[str, list[T]] = {system.name: [] for system in systems}
    try:
        for system in systems:
            system.server.pause()
        for number in range(rounds):
            for system in systems if number % 2 == 0 else reversed(systems):
                system.server.resume()
                taken[system.name].append(measure(system))
                system.server.pause()
    finally:
        for system in systems:
            system.server.resume()
    return taken


class Turn(NamedTuple):
    """One system's part in one round."""

    decisions: Window
    feedback: Window


def decide_and_learn(client: Client, system: System, accounts: int) -> Turn:
    """Decisions, then feedback for them, oldest first."""
    asking = Decisions(drawn(accounts))
    decisions = client.measure(system, asking)
    return Turn(decisions, client.measure(system, FeedbackOf(asking.asked)))


def figures(turns: Sequence[Window], echo: Sequence[Window] | None) -> dict[str, Any]:
    """One system's figures; with the echo's windows of the same rounds, the ratios to them."""
    rps = [turn.rps for turn in turns]
    p99 = [turn.percentile_ms(99) for turn in turns]
    numbers: dict[str, Any] = {"rps": median(rps)}
    if echo is not None:
        ratios = [mine / its.rps for mine, its in zip(rps, echo, strict=True)]
        numbers |= {"ratio": median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
    numbers |= {
        "p50_ms": median(turn.percentile_ms(50) for turn in turns),
        "p99_ms": median(p99),
    }
    if echo is not None:
        numbers["p99_ratio"] = median(
            mine / its.percentile_ms(99) for mine, its in zip(p99, echo, strict=True)
        )
    return numbers | {
        "rps_min": min(rps),
        "rps_max": max(rps),
        "p99_ms_max": max(p99),
        "requests": sum(len(turn.latencies_ms) for turn in turns),
    }


def compared(turns: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    """`echo`, `echo_feedback`, and each service with its feedback inside."""
    echo = turns["echo"]
    echo_decisions = [turn.decisions for turn in echo]
    echo_feedback = [turn.feedback for turn in echo]
    result: dict[str, Any] = {
        "echo": figures(echo_decisions, None),
        "echo_feedback": figures(echo_feedback, None),
    }
    for name, own in turns.items():
        if name != "echo":
            result[name] = figures([turn.decisions for turn in own], echo_decisions) | {
                "feedback": figures([turn.feedback for turn in own], echo_feedback)
            }
    return result
