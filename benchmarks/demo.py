"""The demo: real households through the live service, next to the algorithms one would use.

It measures prediction of the next purchase under bandit feedback, not persuasion.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.player import Account, Journey, Player, PlayError, play_all
from benchmarks.service_process import ServiceError, running_service
from contract.spec import WorkflowSpec, load_workflow
from training.household_baselines import play_baselines
from training.household_scores import FamilyScore, cohort_target, score_family
from training.tasks.households import (
    BRANDS,
    Panel,
    label_permutations,
    labelled_choices,
    load_panels,
)

Array = NDArray[Any]

WORKFLOW = "brand-choice"

INSTALLATION_KEY = "the draws of the demo"
"""Fixes the service's draws, so that the demo can be repeated."""

PATIENCE_SECONDS = 30.0
"""How long a service that is away is waited for: long enough for somebody to restart it."""


class DemoError(RuntimeError):
    """The demo cannot go on."""


@dataclass(frozen=True)
class Settings:
    """What the demo plays, and how."""

    workflows: Path = Path("workflows")
    policies: Path = Path("policies")
    seeds: int = 3
    """Permutation seeds that the service plays, the first of the baselines'."""
    baseline_seeds: int = 20
    households: int | None = None
    """Only the first so many test households of each family."""
    in_flight: int = 8
    """Requests under way at any time. All accounts play at once, and take turns."""
    installation_key: str = INSTALLATION_KEY


class Progress(Protocol):
    """What the demo tells whoever watches."""

    def status(self, text: str) -> None: ...
    def expect(self, stage: str, steps: int) -> None: ...
    def advance(self, stage: str) -> None: ...


@dataclass(frozen=True)
class Result:
    """The demo's numbers."""

    families: list[FamilyScore]
    interactions: int
    seconds: float
    """Wall clock of playing through the service."""
    p50_ms: float
    p99_ms: float
    """Latency of decide, as the client saw it."""
    in_flight: int
    """Requests under way at any time, at most."""
    reasons: Counter[str]
    """How many decisions were made for which reason; `policy` is the policy's own."""

    @property
    def decisions_per_s(self) -> float:
        return self.interactions / self.seconds


def run(settings: Settings, progress: Progress) -> Result:
    """Plays baselines and service. Raises DemoError, ServiceError, SpecError,
    HouseholdsMissingError."""
    if settings.baseline_seeds < settings.seeds:
        raise DemoError(
            f"baseline seeds: expected at least the service's {settings.seeds}, "
            f"got {settings.baseline_seeds}"
        )
    spec = brand_choice(settings.workflows)
    panels = {
        family: replace(panel, test=panel.test[: settings.households])
        for family, panel in load_panels().items()
    }
    baselines = {}
    for family, panel in panels.items():
        progress.status(f"baselines on {family}, {settings.baseline_seeds} label permutations")
        baselines[family] = play_baselines(panel, panel.test, settings.baseline_seeds)
    progress.status("starting the service")
    with running_service(
        workflows=settings.workflows,
        policies=settings.policies,
        installation_key=settings.installation_key,
    ) as service:
        progress.status(f"the service is ready at {service.base_url}")
        try:
            played, seconds = asyncio.run(
                _play_panels(service.base_url, panels, spec, settings, progress)
            )
        except PlayError as error:
            raise ServiceError(service.died() or f"{error}\n{service.log_tail()}") from error
        progress.status("stopping the service")
    families = []
    for family, panel in panels.items():
        bought = labelled_choices(panel.test, label_permutations(family, panel.test, 0))
        rewards = reward_array(played[family], settings.seeds, *bought.shape)
        families.append(
            score_family(
                family, bought >= 0, rewards, baselines[family], cohort_target(bought, BRANDS)
            )
        )
    journeys = [journey for family in panels for journey in played[family]]
    latencies = np.concatenate([journey.decide_seconds for journey in journeys])
    p50_ms, p99_ms = 1_000 * np.percentile(latencies, [50, 99])
    return Result(
        families=families,
        interactions=latencies.size,
        seconds=seconds,
        p50_ms=float(p50_ms),
        p99_ms=float(p99_ms),
        in_flight=settings.in_flight,
        reasons=sum((journey.reasons for journey in journeys), Counter()),
    )


def brand_choice(workflows: Path) -> WorkflowSpec:
    """The workflow that the demo plays, when the panels fit it."""
    spec = load_workflow(workflows / f"{WORKFLOW}.yaml")
    if len(spec.action_ids) != BRANDS or (spec.reward.min, spec.reward.max) != (0.0, 1.0):
        raise DemoError(
            f"{workflows / WORKFLOW}.yaml: expected {BRANDS} actions and rewards in [0, 1], got "
            f"{len(spec.action_ids)} and [{spec.reward.min:g}, {spec.reward.max:g}]"
        )
    return spec


def accounts_of(panel: Panel, seeds: int, action_ids: Sequence[str]) -> list[Account]:
    """One account for each household under each permutation seed, seed-major."""
    accounts = []
    for seed in range(seeds):
        labels = label_permutations(panel.family, panel.test, seed)
        accounts += [
            Account(
                account_id=f"{panel.family}-{household.id}-seed-{seed}",
                rewarded=tuple(action_ids[label] for label in labels[b, household.choices]),
            )
            for b, household in enumerate(panel.test)
        ]
    return accounts


def reward_array(
    journeys: Sequence[Journey], seeds: int, steps: int, households: int
) -> NDArray[np.float64]:
    """The rewards of seed-major journeys as `[S, T, B]`, zero past a household's last purchase."""
    rewards = np.zeros((len(journeys), steps))
    for i, journey in enumerate(journeys):
        rewards[i, : len(journey.rewards)] = journey.rewards
    return rewards.reshape(seeds, households, steps).swapaxes(1, 2)


async def _play_panels(
    base_url: str,
    panels: Mapping[str, Panel],
    spec: WorkflowSpec,
    settings: Settings,
    progress: Progress,
) -> tuple[dict[str, list[Journey]], float]:
    """The journeys of every family's accounts, all families at once, and the seconds it took."""
    accounts = {
        family: accounts_of(panel, settings.seeds, spec.action_ids)
        for family, panel in panels.items()
    }
    family_of = {account.account_id: f for f, each in accounts.items() for account in each}
    for family, each in accounts.items():
        progress.expect(family, sum(len(account.rewarded) for account in each))
    async with _client(base_url, settings.in_flight) as client:
        started = time.perf_counter()
        journeys = await play_all(
            Player(
                client,
                spec.workflow,
                in_flight=settings.in_flight,
                patience_seconds=PATIENCE_SECONDS,
            ),
            [account for each in accounts.values() for account in each],
            on_interaction=lambda account: progress.advance(family_of[account.account_id]),
        )
        seconds = time.perf_counter() - started
    queue: Iterator[Journey] = iter(journeys)
    return {family: [next(queue) for _ in each] for family, each in accounts.items()}, seconds


def _client(base_url: str, in_flight: int) -> httpx.AsyncClient:
    """One kept-open connection for each request under way."""
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    return httpx.AsyncClient(base_url=base_url, limits=limits, timeout=30.0, trust_env=False)
