"""Rollouts simulated: the service's own verdicts and schedule over accounts whose truth is known.

Every account that there is has its decisions at random moments of as many days; its own mean reward
is drawn around the fallback's, and the candidate multiplies it. Each draws 0 or 1 a decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from guardrails.rollouts.cohorts import AGES, Array, compare, strata, stratum
from guardrails.rollouts.schedule import Schedule
from guardrails.rollouts.verdict import Evidence, evaluate

DAY_US = 86_400_000_000
EVALUATIONS_A_DAY = 2

Ending = Literal["rolled_back", "completed", "paused", "unfinished"]


@dataclass(frozen=True)
class World:
    """Whom a simulated rollout meets."""

    lift: float
    """The candidate's mean reward over the fallback's, minus 1."""
    accounts: int = 20_000
    decisions: int = 20
    """Per account, one a day in the mean."""
    mean: float = 0.4
    """The fallback's mean reward."""
    spread: float = 0.15
    """Standard deviation of the accounts' own mean rewards under the fallback."""


class Run(NamedTuple):
    """How one rollout ended."""

    ending: Ending
    exposed: float
    """The share of all accounts that had a decision of the candidate's."""
    days: float


class _Events(NamedTuple):
    """Every decision there could be, in order of time."""

    account: NDArray[np.int64]
    age: NDArray[np.int64]
    """The index of its stratum of age."""
    chance: Array
    """Of being rewarded: a reward of 1 where this is below the account's mean."""
    starts: NDArray[np.int64]
    """Where each evaluation's decisions begin, and where the last ones end."""


def simulate(
    world: World,
    schedule: Schedule,
    runs: int,
    seed: int,
    done: Callable[[], None] = lambda: None,
) -> list[Run]:
    """That many rollouts, each from a generator of its own; `done` is called after each."""
    results = []
    for source in np.random.SeedSequence(seed).spawn(runs):
        results.append(_run(world, schedule, np.random.default_rng(source)))
        done()
    return results


def summarise(results: list[Run]) -> dict[str, object]:
    """What the command prints."""
    exposed = [one.exposed for one in results if one.ending == "rolled_back"]
    early = sum(one < 0.25 for one in exposed)
    p50, p95 = np.percentile(exposed, [50, 95]).tolist() if exposed else (None, None)

    def ended(how: Ending) -> int:
        return sum(one.ending == how for one in results)

    return {
        "runs": len(results),
        "rolled_back": len(exposed),
        "rolled_back_under_25": early,
        "completed": ended("completed"),
        "paused": ended("paused"),
        "unfinished": ended("unfinished"),
        "exposed_at_rollback": {"p50": p50, "p95": p95},
    }


def _run(world: World, schedule: Schedule, rng: np.random.Generator) -> Run:
    means = _means(world, rng)
    candidate_means = np.minimum(means * (1 + world.lift), 1.0)
    events = _events(world, rng)
    candidate, control = _Sums(schedule, world), _Sums(schedule, world)
    # Accounts in the order of their buckets: the first so many are in, the last are held out.
    everyone = round(world.accounts * (1 - schedule.holdout_percent / 100))
    exposed = np.zeros(world.accounts, bool)
    place = _Place(world.accounts)
    shadow = 0
    for tick in range(len(events.starts) - 1):
        now = (tick + 1) * DAY_US // EVALUATIONS_A_DAY
        part = slice(events.starts[tick], events.starts[tick + 1])
        account, age = events.account[part], events.age[part]
        first_out = round(everyone * schedule.stages[place.stage].percent / 100)
        inside = account < first_out
        reward = events.chance[part] < np.where(inside, candidate_means[account], means[account])
        if first_out:
            for cohort, mine in ((candidate, inside), (control, ~inside)):
                cohort.add(place.stage, account[mine], age[mine], reward[mine])
            exposed[account[inside]] = True
            place.count(account, first_out, everyone)
        else:
            shadow += len(account)
        reward_so_far = compare(candidate, control)
        while True:
            verdict = evaluate(
                schedule,
                Evidence(
                    stage=place.stage,
                    stage_since_us=place.since_us,
                    approved=True,
                    stage_candidate_accounts=place.candidates,
                    stage_control_accounts=place.others,
                    stage_interactions=place.interactions,
                    stage_share=schedule.stages[place.stage].percent / 100 or None,
                    reward=reward_so_far,
                    decisions=candidate.interactions,
                    shadow_decisions=shadow,
                ),
                now,
            )
            if verdict.kind != "advance":
                break
            place = _Place(world.accounts, place.stage + 1, now)
        share, days = float(exposed.mean()), now / DAY_US
        if verdict.kind == "rollback":
            return Run("rolled_back", share, days)
        if verdict.kind == "pause":
            return Run("paused", share, days)
    completed = place.stage == len(schedule.stages) - 1
    return Run("completed" if completed else "unfinished", share, place.since_us / DAY_US)


class _Place:
    """The stage that a rollout is in, and what has happened there."""

    def __init__(self, accounts: int, stage: int = 0, since_us: int = 0) -> None:
        self.stage, self.since_us = stage, since_us
        self._fresh = np.ones(accounts, bool)
        self.candidates = self.others = self.interactions = 0

    def count(self, account: NDArray[np.int64], first_out: int, everyone: int) -> None:
        """Takes note of whose decisions were made: those below `first_out` are the candidate's,
        those from `everyone` on are held out."""
        self.interactions += int((account < first_out).sum())
        before = self._fresh.copy()
        self._fresh[account] = False
        new = before & ~self._fresh
        self.candidates += int(new[:first_out].sum())
        self.others += int(new[first_out:everyone].sum())


def _means(world: World, rng: np.random.Generator) -> Array:
    """Each account's own mean reward under the fallback."""
    if not world.spread:
        return np.full(world.accounts, world.mean)
    weight = world.mean * (1 - world.mean) / world.spread**2 - 1
    return rng.beta(world.mean * weight, (1 - world.mean) * weight, world.accounts)


def _events(world: World, rng: np.random.Generator) -> _Events:
    ticks = world.decisions * EVALUATIONS_A_DAY
    at = np.sort(rng.integers(0, ticks, (world.accounts, world.decisions), dtype=np.uint8), axis=1)
    order = np.argsort(at.ravel(), kind="stable")
    account, index = np.divmod(order, world.decisions)
    ages = np.searchsorted(AGES, np.arange(world.decisions), side="right") - 1
    starts = np.concatenate([[0], np.cumsum(np.bincount(at.ravel(), minlength=ticks))])
    return _Events(account, ages[index], rng.random(len(order)), starts)


class _Sums:
    """One cohort's interactions and rewards, by stratum and account."""

    def __init__(self, schedule: Schedule, world: World) -> None:
        size = strata(len(schedule.stages))
        self.accounts = 0
        self.n, self.y = np.zeros(size), np.zeros(size)
        self.interactions = 0
        self._used: list[int] = []
        """The strata that anything happened in, in the order of their rows."""
        rows = min(size, len(schedule.stages) * (stratum(0, world.decisions) + 1))
        self._n = np.zeros((rows, world.accounts), np.float32)
        self._y = np.zeros((rows, world.accounts), np.float32)
        self._seen = np.zeros(world.accounts, bool)

    def add(
        self,
        stage: int,
        account: NDArray[np.int64],
        age: NDArray[np.int64],
        reward: NDArray[np.bool_],
    ) -> None:
        """Interactions of one stage: whose, in which stratum of age, with what reward."""
        self.interactions += len(account)
        self._seen[account] = True
        self.accounts = int(self._seen.sum())
        size = len(self._seen)
        for one in np.flatnonzero(np.bincount(age)).tolist():
            here = stage * len(AGES) + one
            if here not in self._used:
                self._used.append(here)
            row, mine = self._used.index(here), age == one
            self._n[row] += np.bincount(account[mine], minlength=size)
            self._y[row] += np.bincount(account[mine & reward], minlength=size)
            self.n[here] += mine.sum()
            self.y[here] += (mine & reward).sum()

    def squares(self, weights: Array, scaled: Array) -> float:
        """What `compare` asks for."""
        used = len(self._used)
        w, v = weights[self._used].astype(np.float32), scaled[self._used].astype(np.float32)
        of_accounts = w @ self._y[:used] - v @ self._n[:used]
        return float(of_accounts @ of_accounts)
