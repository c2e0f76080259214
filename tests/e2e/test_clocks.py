"""Clocks that jump, and replicas whose clocks differ by hours: the past stays one, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.app import create_app
from service.ledger.records import AccountKey, Feedback
from service.runtime import open_service
from service.settings import Settings
from tests.e2e import audit
from tests.e2e.events import settings_of
from tests.service.conftest import Client, Time

WINDOW, HOUR = 100, 3_600
SKEW = 3 * HOUR


@dataclass
class Replicas:
    """Two services on one ledger, each with a clock of its own."""

    clients: list[Client]
    times: list[Time]

    async def came_of(self, decision_id: str) -> list[Feedback]:
        """Everything that came of a decision, as the ledger has it."""
        return await self.clients[0].service.ledger.feedback("default", decision_id)


@contextlib.asynccontextmanager
async def opened(home: Path, late: str = "apply") -> AsyncIterator[Replicas]:
    """Two embedded services on one SQLite file; the second's clock is three hours behind."""
    shop = settings_of(home, window_seconds=WINDOW, late=late)
    times = [Time(), Time()]
    times[1].pass_seconds(-SKEW)
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for time in times:
            service = await stack.enter_async_context(
                open_service(
                    Settings(data_dir=home / "data", access="open", **shop), time, schedule=False
                )
            )
            transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
            http = await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://localhost")
            )
            clients.append(Client(service, http))
        yield Replicas(clients, times)


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[Replicas]:
    async with opened(tmp_path) as replicas:
        yield replicas


async def test_a_default_is_folded_once_whichever_clocks_say_that_it_is_due(
    replicas: Replicas,
) -> None:
    early, late = replicas.clients
    await late.decide("a", decision_id="d")  # hours ago, by the other's clock
    folded = await asyncio.gather(*(one.service.jobs.fold_defaults() for one in (early, late)))
    assert folded == [1, 0]
    replicas.times[1].pass_seconds(2 * SKEW)
    assert await late.service.jobs.fold_defaults() == 0
    replicas.times[1].pass_seconds(-2 * SKEW)
    assert (await late.learn("d", reward=3)).json()["late"]  # it comes after the default
    assert [one.kind for one in await replicas.came_of("d")].count("default") == 1
    assert (await late.decide("a")).json()["memory_position"] == 2


async def test_feedback_that_was_folded_is_never_folded_again_by_any_clock(
    replicas: Replicas,
) -> None:
    early, late = replicas.clients
    await early.decide("a", decision_id="d")
    told = [(await early.learn("d", reward=3)).json()]
    for jump in (10 * HOUR, -20 * HOUR, 0, 5 * HOUR):
        for client, time in zip(replicas.clients, replicas.times, strict=True):
            time.pass_seconds(jump)
            assert await client.service.jobs.fold_defaults() == 0
            told.append((await client.learn("d", reward=3)).json())
    assert [one["status"] for one in told] == ["folded", *["duplicate"] * 8]
    assert {(one["late"], one["memory_position"]) for one in told} == {(False, 1)}
    assert (await late.decide("a")).json()["memory_position"] == 1


async def test_a_window_is_as_long_as_declared_from_its_own_decision_on(
    replicas: Replicas,
) -> None:
    client, time = replicas.clients[0], replicas.times[0]
    jumps = {"first": -HOUR, "second": HOUR, "third": -2 * HOUR}
    made = {}
    for name, jump in jumps.items():
        await client.decide("a", decision_id=name)
        decision = await client.service.ledger.decision("default", name)
        assert decision is not None
        assert decision.created_at_us == time()
        assert decision.expires_at_us == time() + WINDOW * 1_000_000
        made[name] = decision
        time.pass_seconds(jump)
    for name, decision in made.items():  # each in its own time, whatever happened to the others
        time.now = decision.expires_at_us
        assert not (await client.learn(name, reward=3)).json()["late"]


async def test_a_clock_that_was_set_back_neither_folds_early_nor_forgets_to(
    replicas: Replicas,
) -> None:
    client, time = replicas.clients[0], replicas.times[0]
    await client.decide("a", decision_id="d")
    time.pass_seconds(-HOUR)
    await client.decide("a", decision_id="e")
    time.pass_seconds(WINDOW + 1)
    assert await client.service.jobs.fold_defaults() == 1
    assert [one.kind for one in await replicas.came_of("e")] == ["default"]
    assert await replicas.came_of("d") == []
    time.pass_seconds(HOUR)
    assert await client.service.jobs.fold_defaults() == 1
    assert [one.kind for one in await replicas.came_of("d")] == ["default"]


async def test_of_two_pieces_of_feedback_the_one_that_arrives_last_stands_whatever_their_times(
    replicas: Replicas,
) -> None:
    early, late = replicas.clients
    replicas.times[0].pass_seconds(-SKEW + 10)  # ten seconds ahead
    await early.decide("a", decision_id="d")
    await early.learn("d", reward=3, feedback_id="first")
    await late.learn("d", reward=1, feedback_id="second")  # received before it, by its clock
    await early.learn("d", reward=2, feedback_id="third")
    (account,) = await audit.all_accounts(early.service)
    assert account.adaptation.recent == (2,)
    await audit.nothing_is_half_done(early.service)


async def test_the_reconciler_heals_though_its_clock_was_set_back(replicas: Replicas) -> None:
    client, time = replicas.clients[0], replicas.times[0]
    other = replicas.clients[1]
    replicas.times[1].pass_seconds(SKEW)
    await client.interact("a")
    await client.service.jobs.reconcile()
    for one in replicas.times:
        one.pass_seconds(-HOUR)
    await other.interact("a")  # the first one's memory is behind now
    await client.service.jobs.reconcile()
    time.pass_seconds(1)
    await client.service.jobs.reconcile()
    await audit.memories_equal_their_replays(client.service, within_seconds=0)


@pytest.mark.parametrize("hours", [-5, 5])
async def test_what_a_crash_left_is_healed_at_start_whatever_the_clock_says_then(
    tmp_path: Path, redis_url: str, hours: int
) -> None:
    shop = settings_of(tmp_path) | {"redis_url": redis_url}
    opened = Settings(data_dir=tmp_path / "data", access="open", **shop)
    time = Time()
    async with open_service(opened, time, schedule=False) as service:
        memories, key = service.memories, AccountKey("default", "help", "a")
        identity = service.catalog.workflows["help"].policy.identity
        transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            client = Client(service, http)
            await client.interact("a")
            before = await memories.get(key, identity)
            await client.interact("a")
        assert before is not None
        await memories.put(key, identity, before)  # as if killed before it was stored
    time.pass_seconds(hours * HOUR)
    async with open_service(opened, time, schedule=False) as service:
        assert await service.jobs.reconcile() == 1
        await audit.memories_equal_their_replays(service, within_seconds=0, all_stored=True)


class Step(NamedTuple):
    """What one replica does, after its clock has jumped."""

    kind: Literal["decide", "learn", "second", "defaults"]
    replica: int
    which: int
    jump: int


steps = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(["decide", "decide", "learn", "learn", "second", "defaults"]),
        replica=st.integers(0, 1),
        which=st.integers(0, 10),
        jump=st.sampled_from([0, 0, 1, WINDOW, WINDOW + 1, HOUR, -1, -WINDOW - 1, -HOUR, 5 * HOUR]),
    ),
    min_size=4,
    max_size=25,
)


@dataclass
class Timekeeping:
    """One account's story under clocks that jump."""

    replicas: Replicas
    account: str
    made: list[str] = field(default_factory=list)
    updated_at_us: int = 0
    position: int = 0

    async def do(self, step: Step) -> None:
        client = self.replicas.clients[step.replica]
        self.replicas.times[step.replica].pass_seconds(step.jump)
        if step.kind == "decide":
            name = f"{self.account}-{len(self.made)}"
            told = (await client.decide(self.account, decision_id=name)).json()
            assert told["memory_position"] == self.position
            self.made.append(name)
        elif step.kind == "defaults":
            await client.service.jobs.fold_defaults()
        elif self.made:
            name = self.made[step.which % len(self.made)]
            reward = 3 if step.kind == "learn" else -1
            answer = await client.learn(name, reward=reward, feedback_id=step.kind)
            assert answer.status_code == 200, answer.text
        await self._moved_only_on()

    async def _moved_only_on(self) -> None:
        for account in await audit.all_accounts(self.replicas.clients[0].service):
            if account.key.account_id == self.account:
                assert account.updated_at_us >= self.updated_at_us
                assert account.head.position >= self.position
                self.updated_at_us, self.position = account.updated_at_us, account.head.position

    async def each_was_folded_once(self) -> None:
        """At most one default, one interaction of its feedback, and one more where it was late."""
        for name in self.made:
            came = await self.replicas.came_of(name)
            assert [one.kind for one in came].count("default") <= 1
            places = {one.head.position for one in came if one.kind == "received" and one.head}
            assert len(places) <= 1


@pytest.fixture(params=["apply", "rebuild", "ignore"])
def jumping(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[asyncio.Runner, Replicas]]:
    """Both replicas, in an event loop that lasts for many examples; a workflow of each rule."""
    with asyncio.Runner() as runner:
        opening = opened(tmp_path, late=request.param)
        yield runner, runner.run(opening.__aenter__())
        runner.run(opening.__aexit__(None, None, None))


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=steps)
def test_however_clocks_jump_positions_stay_in_order_and_everything_is_folded_once(
    jumping: tuple[asyncio.Runner, Replicas], steps: list[Step]
) -> None:
    runner, replicas = jumping
    runner.run(story(replicas, steps))


async def story(replicas: Replicas, steps: list[Step]) -> None:
    """One account more, and what is true of it after each step and at the end."""
    service = replicas.clients[0].service
    told = Timekeeping(replicas, f"account-{len(await audit.all_accounts(service))}")
    for step in steps:
        await told.do(step)
    await told.each_was_folded_once()
    await audit.nothing_is_half_done(service)
