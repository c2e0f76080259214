"""Two replicas on one PostgreSQL and one Redis, asked about the same accounts at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.asked import DecisionRequest
from service.learn import FeedbackRequest
from service.ledger.records import AccountKey, AccountUnknownError, Decision, Head
from service.ledger.settle import Recorded
from service.runtime import Service, open_service
from service.settings import Settings
from tests.e2e import audit
from tests.e2e.events import settings_of
from tests.postgres_server import run_sql
from tests.service.conftest import CONTEXT, Time

EVENTS = "feedback, decisions, generations, snapshots, accounts"


class Op(NamedTuple):
    """One request; `which` picks the decision that feedback is for."""

    kind: Literal["decide", "decide at both", "learn", "learn at both", "second", "reset"]
    replica: int
    account: int
    which: int
    delay_ms: int


class Pause(NamedTuple):
    """Every window closes, and both replicas fold the defaults at once."""


ops = st.builds(
    Op,
    # Mostly what accounts live on, so that there is a past to disagree about.
    kind=st.sampled_from(
        ["decide"] * 3 + ["decide at both"] + ["learn"] * 3 + ["learn at both", "second", "reset"]
    ),
    replica=st.integers(0, 1),
    account=st.integers(0, 1),
    which=st.integers(0, 20),
    delay_ms=st.sampled_from([0, 0, 1, 3]),
)
at_once = st.lists(ops, min_size=1, max_size=6)
scripts = st.lists(at_once | st.builds(Pause), min_size=3, max_size=8)


@dataclass
class Pair:
    """Two replicas in one event loop, and what they have acknowledged."""

    replicas: list[Service]
    time: Time
    examples: int = 0
    heads: dict[str, Head] = field(default_factory=dict)
    """The newest head that anybody was told of, by account."""
    decided: dict[str, list[Decision]] = field(default_factory=dict)
    first_told: set[tuple[str, str]] = field(default_factory=set)
    """Feedback that was acknowledged as new."""

    async def play(self, script: list[list[Op] | Pause]) -> None:
        """Each list of the script at once, one list after another."""
        self.examples += 1
        self.heads, self.decided, self.first_told = {}, {}, set()
        for step, part in enumerate(script):
            if isinstance(part, Pause):
                self.time.pass_seconds(101)
                await asyncio.gather(*(one.jobs.fold_defaults() for one in self.replicas))
            else:
                await asyncio.gather(*(self._do(op, f"{step}-{i}") for i, op in enumerate(part)))
                if len(part) == 1 and part[0].kind == "decide":
                    await self._was_at_the_head(part[0])

    async def _do(self, op: Op, name: str) -> None:
        await asyncio.sleep(op.delay_ms / 1e3)
        account = f"{self.examples}-{op.account}"
        here, there = self.replicas[op.replica], self.replicas[1 - op.replica]
        decided = self.decided.get(account, [])
        if op.kind == "decide":
            await self._decide(here, account, name)
        elif op.kind == "decide at both":
            one, other = await both(
                self._decide(here, account, name), self._decide(there, account, name)
            )
            assert one == other
        elif op.kind == "reset":
            with contextlib.suppress(AccountUnknownError):
                anew = await here.ledger.reset(key(account), self.time())
                self._told(account, anew.head)
        elif decided:
            decision = decided[op.which % len(decided)]
            if op.kind == "learn at both":
                await both(self._learn(here, decision), self._learn(there, decision))
            else:
                which = "second" if op.kind == "second" else "first"
                await self._learn(here, decision, which)

    async def _decide(self, replica: Service, account: str, name: str) -> Decision:
        floor = self.heads.get(account, Head())
        workflow = replica.catalog.workflows["help"]
        request = DecisionRequest("default", account, CONTEXT, f"{account}-{name}")
        decision = await replica.decider.decide(workflow, request)
        assert decision.reason == "policy"
        assert decision.head is not None
        assert decision.head >= floor, "made from a memory that misses what was acknowledged"
        known = self.decided.setdefault(account, [])
        if decision not in known:
            known.append(decision)
        self._told(account, decision.head)
        return decision

    async def _learn(
        self, replica: Service, decision: Decision, feedback_id: str = "first"
    ) -> Recorded:
        reward = float(zlib.crc32(f"{decision.decision_id} {feedback_id}".encode()) % 5 - 1)
        recorded = await replica.learner.learn(
            FeedbackRequest("default", decision.decision_id, reward, None, feedback_id, False, None)
        )
        told = (decision.decision_id, feedback_id)
        if not recorded.duplicate:
            assert told not in self.first_told, "taken twice"
            self.first_told.add(told)
        self._told(decision.key.account_id, recorded.head)
        return recorded

    async def _was_at_the_head(self, op: Op) -> None:
        """Alone, a decision is made from the very head that the account has."""
        account = f"{self.examples}-{op.account}"
        found = await self.replicas[0].ledger.account(key(account))
        assert found is not None
        assert self.decided[account][-1].head == found.head

    def _told(self, account: str, head: Head) -> None:
        self.heads[account] = max(head, self.heads.get(account, Head()))

    async def check(self) -> None:
        """What was acknowledged is the ledger's, and memories are folds of it."""
        for account, head in self.heads.items():
            found = await self.replicas[0].ledger.account(key(account))
            assert found is not None
            assert found.head >= head
        for service in self.replicas:
            await service.jobs.reconcile()
        service = self.replicas[0]
        await audit.nothing_is_half_done(service)
        await audit.decisions_follow_from_their_past(service)
        await service.recall.drain()
        await audit.snapshots_are_replays(service)
        await audit.memories_equal_their_replays(service, within_seconds=0)


@pytest.fixture
def pair(
    tmp_path: Path, redis_url: str, postgres_url: str
) -> Iterator[tuple[asyncio.Runner, Pair]]:
    """Two replicas whose jobs run when they are asked to."""
    time = Time()
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        shop = settings_of(tmp_path) | {"redis_url": redis_url, "ledger_url": postgres_url}
        opened = Settings(data_dir=tmp_path / "data", access="open", **shop)
        replicas = [
            runner.run(enter(stack, open_service(opened, time, schedule=False))) for _ in range(2)
        ]
        yield runner, Pair(replicas, time)
        runner.run(stack.aclose())


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(script=scripts)
def test_whatever_two_replicas_are_asked_at_once_there_is_one_past_and_every_memory_is_its_fold(
    pair: tuple[asyncio.Runner, Pair], postgres_url: str, script: list[list[Op] | Pause]
) -> None:
    runner, replicas = pair
    run_sql(postgres_url, f"TRUNCATE {EVENTS}")
    runner.run(replicas.play(script))
    runner.run(replicas.check())


async def both(one: Coroutine[Any, Any, Any], other: Coroutine[Any, Any, Any]) -> tuple[Any, Any]:
    """What two requests that are sent at once come to."""
    return await asyncio.gather(one, other)


async def enter(
    stack: contextlib.AsyncExitStack, opening: contextlib.AbstractAsyncContextManager[Service]
) -> Service:
    return await stack.enter_async_context(opening)


def key(account: str) -> AccountKey:
    return AccountKey("default", "help", account)
