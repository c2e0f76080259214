"""What all simulated workflows have in common: turns, luck, force, subsets, change and delay.

A family says who its accounts are, what a decision is made in and what comes of it; here that
becomes a trial. The number of draws never depends on what is served, so players who are given the
same generator's seed meet the same accounts, contexts and coins. It must never look at a policy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.spec import WorkflowSpec
from training.tasks.workflows.accounts import Outcome, Situation
from training.tasks.workflows.verticals import Latents, Practice, Vertical, pick

Array = NDArray[Any]

REPLAN_EVERY = 20
"""Decisions after which an oracle that plans looks again at accounts that drift."""

DRIFT_EXTENT = 0.5
"""How far, by the end of a trial, a drifting account has gone towards another one."""


@dataclass(frozen=True)
class Options:
    """What an evaluation may set; None: as the vertical is."""

    delay: int | None = None
    """Every feedback is known exactly this many decisions late."""
    change_at: int | None = None
    """Every account's latent parameters are drawn anew before this decision, and never otherwise;
    nothing drifts."""


class Served(NamedTuple):
    """What came of an action in a family's own words."""

    reward: Array
    done: Array
    late: Array
    """`[B]`: decisions that the reward is late for reasons of the outcome, at least 0."""


class SimulatedAccounts(ABC):
    """B accounts of T decisions on K actions: `training.tasks.workflows.Accounts`."""

    coins: ClassVar[int]
    """Uniform numbers that the family needs for each account and decision."""

    def __init__(
        self,
        spec: WorkflowSpec,
        vertical: str,
        population: Vertical,
        accounts: int,
        steps: int,
        rng: np.random.Generator,
        options: Options,
    ) -> None:
        self.spec = spec
        self.vertical = vertical
        self.num_envs = accounts
        self.steps = steps
        self.population = population
        self.options = options
        self.t = 0
        """The number of the next decision, from 0."""
        self.latents: Latents = {}
        """Latent parameters now, each `[B, ...]`."""
        self.plans: Latents = {}
        """What `plan` made of them, each `[B, ...]`."""
        self.rows = np.arange(accounts)
        self.actions = len(spec.actions)
        self._row_of = {action: row for row, action in enumerate(spec.action_ids)}
        self._rng = rng
        self._situation: Situation | None = None

    # What a family says

    @abstractmethod
    def draw_latents(self, rng: np.random.Generator) -> Latents:
        """Latent parameters of B accounts, each `[B, ...]`; drawn twice a trial."""

    @abstractmethod
    def open(self, rng: np.random.Generator) -> None:
        """What else an account is, and the state it starts in."""

    @abstractmethod
    def context(self, coins: Array) -> dict[str, Array]:
        """The columns of the decision to come, from `coins` `[B, coins]` and the state."""

    @abstractmethod
    def lawful(self, columns: Mapping[str, Array]) -> NDArray[np.bool_]:
        """What the spec's limits leave, `[B, K]`."""

    @abstractmethod
    def rules(self, columns: Mapping[str, Array]) -> Sequence[tuple[Array, str]]:
        """The spec's fallback rules in order: where each holds `[B]`, and its action."""

    @abstractmethod
    def means(self, columns: Mapping[str, Array]) -> NDArray[np.float64]:
        """The expected reward of each action now, `[B, K]`."""

    @abstractmethod
    def serve(self, actions: Array, coins: Array) -> Served:
        """Rewards of these actions `[B]`, by the coins of the decision; moves the state."""

    def plan(self, latents: Latents, rows: Array) -> Latents:
        """What an oracle works out beforehand from latent parameters `[N, ...]` of the accounts
        `rows` `[N]`, by name, each `[N, ...]`; kept in `plans`."""
        return {}

    def worth(self, means: Array) -> Array:
        """What each action is worth to one who knows all: more than `means` `[B, K]` only where a
        choice moves the state."""
        return means

    @property
    def episode(self) -> NDArray[np.int64]:
        """Which episode of its account the next decision belongs to, `[B]`; a family whose journeys
        take several decisions says otherwise."""
        return np.full(self.num_envs, self.t, np.int64)

    # The trial

    def reset(self) -> None:
        """New accounts, before their first decision."""
        who, self._luck = self._rng.spawn(2)
        practice, batch = self.population.practice, self.num_envs
        self.t = 0
        self.latents = self.draw_latents(who)
        self._first = {name: values.copy() for name, values in self.latents.items()}
        self._other = self.draw_latents(who)
        self._change_at, self._drifting = self._draw_changes(practice, who)
        pace = pick(
            who.random(batch),
            (practice.late, practice.batched, 1 - practice.late - practice.batched),
        )
        self._is_late, self._is_batched = pace == 0, pace == 1
        self.open(who)
        self.plans = self.plan(self.latents, self.rows)
        changing = np.flatnonzero(self._change_at < self.steps)
        ahead = self.plan(_of(self._other, changing), changing)
        self._other_plans = {name: values.copy() for name, values in self.plans.items()}
        for name, values in ahead.items():
            self._other_plans[name][changing] = values
        self._situation = None
        self._prepare()

    def situation(self) -> Situation:
        """What the next decision is made in."""
        if self._situation is None:
            raise RuntimeError(f"reset first: a trial is {self.steps} decisions")
        return self._situation

    def narrow(self, mask: NDArray[np.bool_]) -> Situation:
        """The situation once no more than `mask` `[B, K]` is left in it, and one action at least: a
        force that it forbids is none. For whoever counts what an account was served."""
        now = self.situation()
        forced = np.where(mask[self.rows, now.forced], now.forced, -1)
        worth = np.where(mask, self.worth(now.means), -np.inf)
        oracle = worth.argmax(axis=1).astype(np.int64)
        self._situation = replace(now, mask=mask, forced=forced, oracle=oracle)
        return self._situation

    def fallback(self) -> NDArray[np.int64]:
        """What the workflow's own fallback would serve now, `[B]`."""
        return self._fallback(self.columns, self.situation().mask)

    def step(self, actions: Array) -> Outcome:
        """Serves these actions `[B]`, or what is forced, and moves on to the next decision."""
        now = self.situation()
        chosen = np.asarray(actions)
        if chosen.shape != (self.num_envs,) or not np.issubdtype(chosen.dtype, np.integer):
            raise ValueError(f"actions: expected {self.num_envs} whole numbers, got {chosen!r}")
        free = now.forced < 0
        known = (chosen >= 0) & (chosen < self.actions)
        if not known[free].all():
            raise ValueError(
                f"actions: expected 0 to {self.actions - 1}, got {chosen[free & ~known]}"
            )
        served = np.where(free, chosen, now.forced).astype(np.int64)
        if not now.mask[self.rows, served].all():
            raise ValueError("actions: expected actions that the mask allows")
        came = self.serve(served, self._coins)
        outcome = Outcome(
            served=served,
            reward=np.asarray(came.reward, np.float64),
            done=np.asarray(came.done, np.bool_),
            known_at=self._known_at(came.late),
        )
        self.t += 1
        self._situation = None
        if self.t < self.steps:
            self._prepare()
        return outcome

    def _prepare(self) -> None:
        """The situation of decision t."""
        self._move_latents()
        luck, batch = self._luck, self.num_envs
        self._coins = luck.random((batch, self.coins))
        common = luck.random((batch, 5 + self.actions))
        self._lateness = common[:, 0]
        practice = self.population.practice
        columns = self.columns = self.context(self._coins)
        lawful = self.lawful(columns)
        asked = np.ones_like(lawful)
        some = np.flatnonzero(common[:, 1] < practice.subset)
        if some.size:
            wanted = common[some, 5:]
            asked[some] = wanted <= np.maximum(0.6, np.partition(wanted, 1, axis=1)[:, 1:2])
        mask = self._allowed(lawful, asked)
        forced = np.full(batch, -1, np.int64)
        hit = np.flatnonzero(common[:, 2] < practice.forced)
        if hit.size:
            counts = mask[hit].cumsum(axis=1)
            nth = np.floor(common[hit, 3] * counts[:, -1]).astype(np.int64)
            any_allowed = np.argmax(counts > nth[:, None], axis=1)
            by_rule = self._fallback({n: c[hit] for n, c in columns.items()}, mask[hit])
            forced[hit] = np.where(common[hit, 4] < 0.5, by_rule, any_allowed)
        means = self.means(columns)
        worth = np.where(mask, self.worth(means), -np.inf)
        self._situation = Situation(
            columns=columns,
            mask=mask,
            forced=forced,
            means=means,
            oracle=worth.argmax(axis=1).astype(np.int64),
        )

    def _allowed(self, lawful: Array, asked: Array) -> NDArray[np.bool_]:
        """What is left of what was asked for, as `guardrails.limits` leaves it, `[B, K]`."""
        mask: NDArray[np.bool_] = lawful & asked
        nothing = np.flatnonzero(~mask.any(axis=1))
        if nothing.size:
            safe = self._row_of[self.spec.guardrails.safe_action or self.spec.fallback.action]
            left = lawful[nothing]
            instead = np.where(left[:, safe] | ~left.any(axis=1), safe, left.argmax(axis=1))
            mask[nothing] = np.arange(self.actions) == instead[:, None]
        return mask

    def _fallback(self, columns: Mapping[str, Array], mask: Array) -> NDArray[np.int64]:
        """As `guardrails.fallback` chooses, for any number of accounts."""
        last = [self.spec.fallback.action]
        if self.spec.guardrails.safe_action is not None:
            last.append(self.spec.guardrails.safe_action)
        chosen = mask.argmax(axis=1)
        always = np.ones(len(mask), np.bool_)
        for holds, action in reversed([*self.rules(columns), *((always, one) for one in last)]):
            row = self._row_of[action]
            chosen = np.where(holds & mask[:, row], row, chosen)
        return np.asarray(chosen, np.int64)

    def _draw_changes(self, practice: Practice, rng: np.random.Generator) -> tuple[Array, Array]:
        """The decision before which each account becomes another, T for never, `[B]`; and which
        accounts drift."""
        kind = pick(
            rng.random(self.num_envs),
            (practice.changing, practice.drifting, 1 - practice.changing - practice.drifting),
        )
        when = 1 + np.floor(rng.random(self.num_envs) * (self.steps - 1)).astype(np.int64)
        if self.options.change_at is not None:
            always = np.full(self.num_envs, self.options.change_at, np.int64)
            return always, np.zeros(0, np.int64)
        return np.where(kind == 0, when, self.steps), np.flatnonzero(kind == 1)

    def _move_latents(self) -> None:
        """What changes in accounts before decision t."""
        changed = np.flatnonzero(self._change_at == self.t)
        if changed.size:
            for now, then in ((self.latents, self._other), (self.plans, self._other_plans)):
                for name, values in then.items():
                    now[name][changed] = values[changed]
        drifting = self._drifting
        if drifting.size and self.t:
            gone = DRIFT_EXTENT * self.t / self.steps
            for name, values in self._first.items():
                if np.issubdtype(values.dtype, np.floating):
                    start = values[drifting]
                    self.latents[name][drifting] = start + gone * (
                        self._other[name][drifting] - start
                    )
            if self.t % REPLAN_EVERY == 0:
                for name, values in self.plan(_of(self.latents, drifting), drifting).items():
                    self.plans[name][drifting] = values

    def _known_at(self, late: Array) -> NDArray[np.int64]:
        """When the rewards of decision t are known, `[B]`."""
        soonest = self.t + 1
        if self.options.delay is not None:
            return np.full(self.num_envs, soonest + self.options.delay, np.int64)
        practice = self.population.practice
        waits = np.floor(self._lateness * (practice.longest_delay + 1))
        known = soonest + np.maximum(late, np.where(self._is_late, waits, 0)).astype(np.int64)
        together = -(-known // practice.batch) * practice.batch
        return np.where(self._is_batched, together, known).astype(np.int64)


def _of(latents: Latents, rows: Array) -> Latents:
    """Those of some accounts."""
    return {name: values[rows] for name, values in latents.items()}


def refuse_impossible_trial(*, accounts: int, steps: int, options: Options) -> None:
    """Raises ValueError naming the field and what it expects."""
    for field, value in (("accounts", accounts), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{field}: expected at least 1, got {value}")
    if options.delay is not None and not 0 <= options.delay < steps:
        raise ValueError(
            f"delay: expected 0 to {steps - 1}, shorter than the trial of {steps} decisions, got "
            f"{options.delay}"
        )
    if options.change_at is not None and not 1 <= options.change_at < steps:
        raise ValueError(
            f"change_at: expected 1 to {steps - 1}, a decision of the trial after the first, got "
            f"{options.change_at}"
        )
