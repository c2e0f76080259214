"""Simulated rollouts end as the schedule promises, and cheaply told sums are the service's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from acclimate import main
from guardrails.rollouts.cohorts import Cohort, compare, strata
from guardrails.rollouts.schedule import DEFAULT_SCHEDULE
from service.rollouts.simulation import World, _Sums, simulate, summarise

COUNTS = {"runs", "rolled_back", "rolled_back_under_25", "completed", "paused", "unfinished"}


def test_the_simulation_compares_as_the_service_does() -> None:
    """The same interactions as sums by account and as the sums over accounts that are kept."""
    rng = np.random.default_rng(1)
    world = World(0.0, accounts=60, decisions=20)
    size = strata(len(DEFAULT_SCHEDULE.stages))
    cheap = [_Sums(DEFAULT_SCHEDULE, world) for _ in range(2)]
    kept = [Cohort.empty(size) for _ in range(2)]
    n, y = np.zeros((2, size, 60)), np.zeros((2, size, 60))
    for stage in (1, 2, 3):
        for which in (0, 1):
            account = rng.integers(30 * which, 30 * which + 30, 100)
            age, reward = rng.integers(0, 5, 100), rng.random(100) < 0.4
            cheap[which].add(stage, account, age, reward)
            rows = stage * (size // len(DEFAULT_SCHEDULE.stages)) + age
            np.add.at(n[which], (rows, account), 1)
            np.add.at(y[which], (rows, account), reward)
    nothing = np.zeros(size)
    for which in (0, 1):
        for one in range(60):
            kept[which].replace((nothing, nothing), (n[which, :, one], y[which, :, one]))
    told, expected = compare(*cheap), compare(*kept)
    assert told is not None and expected is not None
    assert tuple(told) == pytest.approx(tuple(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("lift", "ending"), [(-0.10, "rolled_back_under_25"), (0.0, "completed"), (0.10, "completed")]
)
def test_a_worse_policy_is_taken_back_and_others_are_not(lift: float, ending: str) -> None:
    """A few of the 1,000 runs whose figures docs/rollouts.md has."""
    found = summarise(simulate(World(lift), DEFAULT_SCHEDULE, 8, seed=3))
    assert found[ending] >= 7, found  # type: ignore[operator]


def test_an_equal_policy_is_seldom_taken_back() -> None:
    """At most 60 of 1,000 are asked for, 9 were found: 7 of 40 would be no chance."""
    found = summarise(simulate(World(0.0), DEFAULT_SCHEDULE, 40, seed=4))
    assert found["rolled_back"] <= 6, found  # type: ignore[operator]


def test_the_command_prints_what_programs_read_and_the_same_again() -> None:
    command = ["rollout", "simulate", "--lift", "-0.10", "--runs", "2", "--seed", "1", "--json"]
    first, again = (CliRunner().invoke(main, command) for _ in range(2))
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert told == json.loads(again.stdout)
    assert set(told) == COUNTS | {"exposed_at_rollback"}
    assert set(told["exposed_at_rollback"]) == {"p50", "p95"}
    assert sum(told[one] for one in ("rolled_back", "completed", "paused", "unfinished")) == 2


def test_what_cannot_be_simulated_is_refused() -> None:
    command = ["rollout", "simulate", "--lift", "0", "--mean", "0.01", "--spread", "0.5"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 2
    assert "--spread" in refused.stderr
