"""A workflow's simulated accounts, played against a running service over REST.

The service decides, the simulator says what came of it: of the action that was served, once it may
be known. Accounts go on together, a decision each; ids come from what is played, so that the same
run may be sent again, or gone on with, at any time. It must never decide anything itself, and it
knows of the service what every caller knows.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from acclimate_client import Ask, Decision, Learned, Tell
from contract.spec import WorkflowSpec
from guardrails.fallback import Fallback
from guardrails.limits import Limits
from training.simulate_rations import Rationed
from training.simulate_service import (
    RefusedError,
    Service,
    ServiceAwayError,
    sound,
    understood,
)
from training.tasks.workflows.accounts import Situation, raw_context
from training.tasks.workflows.families import Options, build_accounts
from training.tasks.workflows.simulation import SimulatedAccounts

R = TypeVar("R")


@dataclass(frozen=True)
class Play:
    """What is played. Two that are equal play the same accounts under the same ids."""

    workflow: str
    verticals: tuple[str, ...]
    accounts: int
    """Over all verticals, as evenly as they divide."""
    decisions: int
    """Of each account."""
    seed: int
    delay: int | None = None
    """Decisions that every feedback comes late; None: as the vertical is."""
    change_at: int | None = None
    """The decision before which every account becomes another; None: as the vertical is."""
    run: str = "sim"
    """Its name: another one plays the same accounts anew, under other ids."""

    @property
    def prefix(self) -> str:
        """What the ids of its accounts begin with."""
        played = json.dumps([getattr(self, name) for name in self.__dataclass_fields__])
        return f"{self.run}-{hashlib.sha256(played.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Pace:
    """How it is played; none of it changes who plays and what comes of what."""

    decisions_per_s: float = 0.0
    """0: as fast as it goes."""
    delay_seconds: float = 0.0
    """How long feedback waits at least."""
    in_flight: int = 16
    """Requests under way at any time."""
    batch: bool = False
    """One request for what is asked, or told, at one time."""


@dataclass
class Group:
    """The accounts of one vertical, and what has become of them."""

    accounts: SimulatedAccounts
    ids: list[str]
    episodes: NDArray[np.int64]
    """`[B]`: the number of each account's journey."""
    limits: Limits
    rationed: Rationed
    fallback: Fallback
    rewards: list[NDArray[np.float64]] = field(default_factory=list)
    """`[B]` for each decision so far, as are the following three."""
    served_means: list[NDArray[np.float64]] = field(default_factory=list)
    """The expected reward of what was served."""
    fallback_means: list[NDArray[np.float64]] = field(default_factory=list)
    oracle_means: list[NDArray[np.float64]] = field(default_factory=list)


@dataclass
class Played:
    """All that came of it."""

    groups: list[Group]
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    limits: Counter[str] = field(default_factory=Counter)
    policies: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    late: int = 0
    adapted_at: list[int | None] = field(default_factory=list)
    """By account, as the service has it."""


class _Owed(NamedTuple):
    """Feedback that is still to be sent."""

    known_at: int
    decided_at: float
    tell: Tell


def groups_of(play: Play, spec: WorkflowSpec) -> list[Group]:
    """The accounts to be played, before their first decision. Raises ValueError."""
    if play.accounts < len(play.verticals):
        raise ValueError(
            f"accounts: expected at least one for each of {len(play.verticals)} verticals, got "
            f"{play.accounts}"
        )
    seeds = np.random.SeedSequence(play.seed).spawn(len(play.verticals))
    groups = []
    for place, (vertical, seed) in enumerate(zip(play.verticals, seeds, strict=True)):
        count = len(range(place, play.accounts, len(play.verticals)))
        accounts = build_accounts(
            play.workflow,
            vertical,
            accounts=count,
            steps=play.decisions,
            rng=np.random.default_rng(seed),
            options=Options(delay=play.delay, change_at=play.change_at),
            spec=spec,
        )
        accounts.reset()
        ids = [f"{play.prefix}-{vertical}-{i:0{len(str(count))}}" for i in range(count)]
        episodes, rationed = np.zeros(count, np.int64), Rationed(spec)
        groups.append(Group(accounts, ids, episodes, Limits(spec), rationed, Fallback(spec)))
    return groups


class Simulation:
    """One play against one service."""

    def __init__(
        self,
        service: Service,
        play: Play,
        pace: Pace,
        groups: list[Group],
        on_decisions: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._service = service
        self._client = service.client
        self._play = play
        self._pace = pace
        self._groups = groups
        self._on_decisions = on_decisions
        self._slots = asyncio.Semaphore(pace.in_flight)
        self._owed: defaultdict[str, list[_Owed]] = defaultdict(list)
        """By account, in the order of its decisions."""
        self._asked = 0
        self._started = 0.0
        self._played = Played(groups)

    async def run(self) -> Played:
        """Everything, to the end. Raises ServiceAwayError and RefusedError."""
        played = self._played
        self._started = time.perf_counter()
        for t in range(self._play.decisions):
            await self._tell(partial(self._is_due, t))
            await self._decide_all(t)
        await self._tell(lambda owed: True)
        played.seconds = time.perf_counter() - self._started
        ids = [one for group in self._groups for one in group.ids]
        workflow = self._play.workflow
        played.adapted_at = await self._all(
            [partial(self._service.adapted_at, workflow, one) for one in ids]
        )
        return played

    def _is_due(self, t: int, owed: _Owed) -> bool:
        """Whether it may be known before decision t, and has waited long enough."""
        waited = time.perf_counter() - owed.decided_at
        return owed.known_at <= t and waited >= self._pace.delay_seconds

    # Decisions

    async def _decide_all(self, t: int) -> None:
        """One decision of every account, and what comes of it."""
        situations = [group.accounts.situation() for group in self._groups]
        asks = [
            ask
            for group, situation in zip(self._groups, situations, strict=True)
            for ask in _asks(group, situation, t)
        ]
        decisions = iter(await self._decided(asks))
        for group, situation in zip(self._groups, situations, strict=True):
            made = [next(decisions) for _ in group.ids]
            self._serve(group, situation, made)

    async def _decided(self, asks: Sequence[Ask]) -> list[Decision]:
        workflow = self._play.workflow
        if self._pace.batch:
            await self._turn(len(asks))
            with understood():
                answers = await self._client.decide_many(workflow, asks)
                made = [sound(answer) for answer in answers]
            self._on_decisions(len(made))
            return made

        async def one(ask: Ask) -> Decision:
            await self._turn(1)
            with understood():
                decision = await self._client.decide(
                    workflow,
                    ask.account_id,
                    ask.context,
                    actions=ask.actions,
                    episode_id=ask.episode_id,
                    decision_id=ask.decision_id,
                )
            self._on_decisions(1)
            return decision

        return await self._all([partial(one, ask) for ask in asks])

    async def _turn(self, decisions: int) -> None:
        """Waits until so many more may be asked for."""
        if self._pace.decisions_per_s > 0:
            due = self._started + self._asked / self._pace.decisions_per_s
            self._asked += decisions
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))

    def _serve(self, group: Group, situation: Situation, made: Sequence[Decision]) -> None:
        """Moves the accounts on by what was served to them."""
        accounts, rows = group.accounts, np.arange(len(made))
        ids = accounts.spec.action_ids
        contexts = _contexts(group, situation)
        lawful = [one.lawful for one in group.limits.allow_each(contexts, [None] * len(made))]
        situation = accounts.narrow(group.rationed.left(situation, lawful, made))
        try:
            actions = np.array([ids.index(decision.action) for decision in made], np.int64)
            is_other = (situation.forced >= 0) & (actions != situation.forced)
            if is_other.any():
                raise ValueError(f"{ids[int(actions[is_other][0])]} instead of what was forced")
            outcome = accounts.step(actions)
        except ValueError as error:
            raise RefusedError(f"the service served what the workflow forbids: {error}") from error
        group.rewards.append(outcome.reward)
        group.served_means.append(situation.means[rows, actions])
        group.oracle_means.append(situation.means[rows, situation.oracle])
        by_rule = [
            group.fallback.choose(context, situation.mask[row])
            for row, context in enumerate(contexts)
        ]
        group.fallback_means.append(situation.means[rows, by_rule])
        now = time.perf_counter()
        for row, decision in enumerate(made):
            self._played.reasons[decision.reason] += 1
            self._played.policies[decision.policy] += 1
            self._played.limits.update(decision.limits)
            tell = Tell(
                decision.decision_id,
                reward=float(outcome.reward[row]),
                episode_end=bool(outcome.done[row]),
            )
            self._owed[group.ids[row]].append(_Owed(int(outcome.known_at[row]), now, tell))
        group.episodes += outcome.done

    # Feedback

    async def _tell(self, is_due: Callable[[_Owed], bool]) -> None:
        """Sends what is due: each account's in the order in which it became known."""
        due: list[list[Tell]] = []
        for account, owed in list(self._owed.items()):
            ready = [is_due(one) for one in owed]
            if any(ready):
                known = sorted(compress(owed, ready), key=lambda one: one.known_at)
                due.append([one.tell for one in known])
                self._owed[account] = [
                    one for one, sent in zip(owed, ready, strict=True) if not sent
                ]
        if self._pace.batch:
            tells = [tell for account in due for tell in account]
            if tells:
                with understood():
                    answers = await self._client.learn_many(tells)
                    self._count([sound(answer) for answer in answers])
            return

        async def one(tells: Sequence[Tell]) -> None:
            for tell in tells:
                with understood():
                    learned = await self._client.learn(
                        tell.decision_id, reward=tell.reward, episode_end=tell.episode_end
                    )
                self._count([learned])

        await self._all([partial(one, tells) for tells in due])

    def _count(self, learned: Sequence[Learned]) -> None:
        self._played.statuses.update(one.status for one in learned)
        self._played.late += sum(one.late for one in learned)

    async def _all(self, work: Sequence[Callable[[], Awaitable[R]]]) -> list[R]:
        """What all of it gives, with few requests in flight; the first error ends the rest."""

        async def in_turn(one: Callable[[], Awaitable[R]]) -> R:
            async with self._slots:
                return await one()

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(in_turn(one)) for one in work]
        except* (ServiceAwayError, RefusedError) as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]


def _asks(group: Group, situation: Situation, t: int) -> Iterator[Ask]:
    """What is asked for each account: all actions, a subset, or the one that is forced."""
    spec = group.accounts.spec
    contexts = _contexts(group, situation)
    allowed = group.limits.allow_each(contexts, [None] * len(contexts))
    ids = np.array(spec.action_ids)
    for row, (account, context) in enumerate(zip(group.ids, contexts, strict=True)):
        forced, mask = int(situation.forced[row]), situation.mask[row]
        actions: list[str] | None = None
        if forced >= 0:
            actions = [spec.action_ids[forced]]
        elif not np.array_equal(mask, allowed[row].mask):
            actions = ids[mask].tolist()
        multi = spec.episodes == "multi_step"
        yield Ask(
            account,
            context,
            actions,
            episode_id=f"{account}-e{group.episodes[row]}" if multi else None,
            decision_id=f"{account}-{t}",
        )


def _contexts(group: Group, situation: Situation) -> list[dict[str, Any]]:
    spec, columns = group.accounts.spec, situation.columns
    return [raw_context(spec, columns, row) for row in range(len(group.ids))]
