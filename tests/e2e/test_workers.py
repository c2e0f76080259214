"""Real Celery workers and beats on real Redis and PostgreSQL, killed in the middle of jobs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, select

from guardrails.streams import BATCH
from service.asked import DecisionRequest
from service.learn import FeedbackRequest
from service.ledger.alarms import list_alarms, read_streams
from service.ledger.leases import read_jobs
from service.ledger.records import AccountKey
from service.ledger.tables import decisions, feedback, generations
from service.memory.store import StoredMemory
from service.rollouts.gather import read_cohorts
from service.rollouts.store import read_transitions
from service.runtime import Service, open_service
from service.settings import Settings
from service.worker import TASK, celery_app
from tests.bundles import write_counting_bundle
from tests.e2e import audit
from tests.e2e.events import settings_of
from tests.processes import Child, free_port
from tests.service.conftest import CONTEXT
from tests.service.pasts import same
from tests.service_process import ROOT, environment

LEASE_SECONDS = 1.0
ACCOUNTS = [f"account-{n}" for n in range(6)]

Start = Callable[..., Child]


@pytest.fixture
def shop(tmp_path: Path, redis_url: str, postgres_url: str) -> dict[str, Any]:
    """The settings of one installation, whose decisions wait half a second for their feedback."""
    return settings_of(tmp_path, window_seconds=0.5) | {
        "redis_url": redis_url,
        "ledger_url": postgres_url,
        "jobs": "workers",
        "job_interval_seconds": 0.2,
        "job_lease_seconds": LEASE_SECONDS,
        "data_dir": tmp_path / "data",
    }


@pytest.fixture
def start(tmp_path: Path, shop: dict[str, Any]) -> Iterator[Start]:
    """Starts `acclimate worker` or `acclimate beat`, each gone with the test."""
    children: list[Child] = []

    def start_one(command: str, **settings: Any) -> Child:
        given = shop | {"data_dir": tmp_path / f"{command}-{len(children)}"} | settings
        env = environment({name: str(value) for name, value in given.items()})
        log = tmp_path / f"{command}-{len(children)}.log"
        words = [sys.executable, "-m", "acclimate", command]
        children.append(Child(words, log=log, env=env, cwd=ROOT))
        return children[-1]

    yield start_one
    for child in children:
        child.kill()
        print(child.log_tail())


@contextlib.asynccontextmanager
async def serving(shop: dict[str, Any], **changes: Any) -> AsyncIterator[Service]:
    """The process that serves; it leaves the jobs to workers."""
    async with open_service(Settings(**(shop | changes))) as service:
        yield service


def ask_for(shop: dict[str, Any], job: str) -> None:
    """What a beat does."""
    with celery_app(Settings(**shop)) as app:
        app.send_task(TASK, args=(job,))


async def decide(service: Service, account: str, decision_id: str) -> None:
    workflow = service.catalog.workflows["help"]
    request = DecisionRequest("default", account, CONTEXT, decision_id)
    await service.decider.decide(workflow, request)


async def learn(service: Service, decision_id: str) -> None:
    given = FeedbackRequest("default", decision_id, 3.0, None, "one", False, None)
    await service.learner.learn(given)


async def disappoint(service: Service) -> None:
    """Rewards of all accounts, good at first, that fall and stay down."""
    for n in range(45):
        asked = [
            DecisionRequest("default", account, CONTEXT, f"{account}-{n}") for account in ACCOUNTS
        ]
        await service.decider.decide_many(service.catalog.workflows["help"], asked)
        reward = 3.0 if n < 30 else -1.0
        given = [
            FeedbackRequest("default", f"{account}-{n}", reward, None, "one", False, None)
            for account in ACCOUNTS
        ]
        await service.learner.learn_many(given)


async def defaults(service: Service) -> list[str]:
    """The decisions whose default is folded, each as often as it is."""
    query = select(feedback.c.decision_id).where(feedback.c.kind == "default")
    return sorted(await service.ledger.read(lambda it: list(it.scalars(query))))


async def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Returns when it holds; the condition may be asynchronous."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.1)


async def ended(child: Child) -> int:
    """The exit status of a process that dies by itself."""

    async def gone() -> bool:
        return not child.running

    await until(gone)
    return child.process.returncode


async def ran(service: Service, job: str) -> bool:
    """Whether a run of the job ended well, and none is under way."""
    rows = [one for one in await service.ledger.read(read_jobs) if one.job == job]
    return bool(rows) and not rows[0].is_running and rows[0].outcome == "done"


async def test_two_beats_and_two_workers_fold_every_default_once(
    shop: dict[str, Any], start: Start
) -> None:
    for command in ("beat", "beat", "worker", "worker"):
        start(command)
    async with serving(shop) as service:
        wanted = sorted(f"{account}-{n}" for account in ACCOUNTS for n in range(4))
        for decision_id in wanted:
            await decide(service, decision_id.rsplit("-", 1)[0], decision_id)

        async def all_folded() -> bool:
            return await defaults(service) == wanted

        await until(all_folded, 40)
        await asyncio.sleep(1)
        assert await all_folded()
        for job in ("defaults", "reconcile", "migrate"):
            await until(partial(ran, service, job))
        await audit.nothing_is_half_done(service)
        await audit.memories_equal_their_replays(service, within_seconds=5)


async def test_when_beat_is_gone_processes_that_serve_tell_that_jobs_are_done_no_more(
    shop: dict[str, Any], start: Start
) -> None:
    async with serving(shop) as service:
        registry = service.metrics.registry

        async def done_at() -> float:
            await service.scheduler.look()
            name = "acclimate_job_done_timestamp_seconds"
            return registry.get_sample_value(name, {"task": "defaults"}) or 0.0

        first = await done_at()
        beat, worker = start("beat"), start("worker")

        async def is_done_again() -> bool:
            return await done_at() > first + 1

        await until(is_done_again, 40)
        beat.kill()

        async def stands_still() -> bool:
            last = await done_at()
            await asyncio.sleep(2)
            return await done_at() == last

        await until(stands_still, 30)  # once what it had asked for is done
        assert worker.running


async def test_what_a_worker_exports_ends_when_an_operator_ends_it_elsewhere(
    shop: dict[str, Any], start: Start
) -> None:
    port = free_port()
    async with serving(shop) as service, httpx.AsyncClient() as http:
        await disappoint(service)
        worker = start("worker", worker_metrics_port=port)

        async def exported(name: str, **labels: str) -> float:
            """The sum over the worker's samples of that name and these labels; 0 without any."""
            try:
                text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
            except httpx.TransportError:
                return 0.0
            return sum(
                sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == name and labels.items() <= sample.labels.items()
            )

        alarms = partial(exported, "acclimate_alarms_open", kind="reward_shift", scope="account")
        switch = partial(exported, "acclimate_kill_switch", workflow="help")
        jobs = partial(exported, "acclimate_job_done_timestamp_seconds", task="alarms")

        async def become(wanted: tuple[int, int]) -> None:
            async def are() -> bool:
                return (await alarms(), await switch()) == wanted

            await until(are, 40)

        ask_for(shop, "alarms")
        await service.kill_switch.throw("help", True, "Ada", "odd", service.clock())
        await become((len(ACCOUNTS), 1))

        async def told_of_its_run() -> bool:
            return await jobs() > time.time() - 120

        await until(told_of_its_run)
        for alarm in await service.ledger.read(list_alarms("default")):
            await service.watch.end(alarm, "Ada")
        await service.kill_switch.throw("help", False, "Ada", "it was", service.clock())
        await become((0, 0))
        assert worker.running  # one that is gone exports nothing either
        assert await jobs() > 0


@pytest.mark.parametrize("point", ["default.in_transaction", "default.committed"])
async def test_a_worker_killed_among_defaults_leaves_the_next_to_complete_them(
    shop: dict[str, Any], start: Start, point: str
) -> None:
    async with serving(shop) as service:
        for account in ACCOUNTS:
            await decide(service, account, f"{account}-1")
        await asyncio.sleep(0.6)
        doomed = start("worker", fault_point=point)
        ask_for(shop, "defaults")
        assert await ended(doomed) == -signal.SIGKILL
        assert f"killed at fault point {point}" in doomed.log_tail()
        await asyncio.sleep(LEASE_SECONDS)
        start("worker")
        ask_for(shop, "defaults")

        async def all_folded() -> bool:
            return await defaults(service) == [f"{account}-1" for account in ACCOUNTS]

        await until(all_folded)
        await audit.nothing_is_half_done(service)


@pytest.mark.parametrize("point", ["retention.in_transaction", "retention.committed"])
async def test_a_worker_killed_while_it_clears_leaves_the_next_to_complete_it(
    shop: dict[str, Any], start: Start, point: str
) -> None:
    shop |= {"retention_days": 1e-6}
    async with serving(shop) as service:
        for account in ACCOUNTS:
            for n in range(4):  # a memory is kept at the third
                await decide(service, account, f"{account}-{n}")
                await learn(service, f"{account}-{n}")
        await service.recall.drain()
        await asyncio.sleep(1)
        doomed = start("worker", fault_point=point)
        ask_for(shop, "retention")
        assert await ended(doomed) == -signal.SIGKILL
        await asyncio.sleep(LEASE_SECONDS)
        start("worker")
        ask_for(shop, "retention")

        async def only_the_last_is_left() -> bool:
            count = select(func.count()).select_from(decisions)
            return await service.ledger.read(lambda it: it.scalar(count)) == len(ACCOUNTS)

        await until(only_the_last_is_left)
        workflow = service.catalog.workflows["help"]
        for account in ACCOUNTS:
            key = AccountKey("default", "help", account)
            (stored,) = await service.recall.stored([(workflow, key)])
            replayed = await service.recall.fresh(workflow, key, from_snapshots=True)
            assert replayed.complete
            assert isinstance(stored, StoredMemory)
            assert same(stored.memory, replayed.memory.memory)


async def test_a_worker_killed_while_it_migrates_leaves_the_next_to_complete_it(
    shop: dict[str, Any], start: Start, tmp_path: Path
) -> None:
    async with serving(shop) as service:
        for account in ACCOUNTS:
            for n in range(5):
                await decide(service, account, f"{account}-{n}")
                await learn(service, f"{account}-{n}")
    write_counting_bundle(tmp_path / "policies", version=2)
    spec = tmp_path / "workflows" / "help.yaml"
    spec.write_text(spec.read_text().replace("policy: counting/1", "policy: counting/2"))
    doomed = start("worker", fault_point="migrate.brought:3")
    ask_for(shop, "migrate")
    assert await ended(doomed) == -signal.SIGKILL
    async with serving(shop) as service:
        workflow = service.catalog.workflows["help"]
        keys = [AccountKey("default", "help", account) for account in ACCOUNTS]

        async def brought() -> int:
            found = await service.recall.stored([(workflow, key) for key in keys])
            return sum(one is not None for one in found)

        assert await brought() == 3
        start("worker")
        await asyncio.sleep(LEASE_SECONDS)
        ask_for(shop, "migrate")

        async def all_brought() -> bool:
            return await brought() == len(ACCOUNTS) and await ran(service, "migrate")

        await until(all_brought)
        await audit.memories_equal_their_replays(service, within_seconds=5)


@pytest.mark.parametrize("point", ["alarms.in_transaction", "alarms.committed", "alarms.reset"])
async def test_a_worker_killed_among_alarms_leaves_the_next_to_raise_and_follow_each_once(
    shop: dict[str, Any], start: Start, tmp_path: Path, point: str
) -> None:
    spec = tmp_path / "workflows" / "help.yaml"
    spec.write_text(spec.read_text() + "alarms: {reward_shift: {account: reset_memory}}\n")
    async with serving(shop) as service:
        await disappoint(service)
        doomed = start("worker", fault_point=point)
        ask_for(shop, "alarms")
        assert await ended(doomed) == -signal.SIGKILL
        start("worker")
        await asyncio.sleep(LEASE_SECONDS)
        ask_for(shop, "alarms")

        async def done() -> bool:
            return await ran(service, "alarms")

        await until(done)
        found = await service.ledger.read(list_alarms("default", open_only=False))
        assert sorted(one.account_id for one in found) == ACCOUNTS
        assert all(one.acted_at_us is not None for one in found)
        resets = select(generations.c.account_id).where(generations.c.reason == "reset")
        assert sorted(await service.ledger.read(lambda it: list(it.scalars(resets)))) == ACCOUNTS
        streams = await service.ledger.read(read_streams("default", "help", "counting/1"))
        (stream,) = streams.values()
        assert len(stream.body["rewards"]) * BATCH == 25 * len(ACCOUNTS)  # those above SETTLED
        assert "settled" not in stream.body["pending"]
        await audit.nothing_is_half_done(service)


@pytest.mark.parametrize(
    "point", ["rollouts.in_transaction", "rollouts.gathered", "rollouts.judged"]
)
async def test_a_worker_killed_among_rollouts_leaves_the_next_to_count_and_judge_each_once(
    shop: dict[str, Any], start: Start, tmp_path: Path, point: str
) -> None:
    write_counting_bundle(tmp_path / "policies", version=2)
    stage = {"min_accounts": 1, "bake_interactions": 1}
    schedule = {"stages": [stage | {"percent": one} for one in (50, 100)], "holdout_percent": 5}
    crowd = [f"account-{n}" for n in range(40)]
    async with serving(shop) as service:
        rollout = await service.rollouts.create(
            "help", "counting/2", "current", schedule, "somebody", "newer"
        )
        for n in range(2):
            asked = [DecisionRequest("default", one, CONTEXT, f"{one}-{n}") for one in crowd]
            await service.decider.decide_many(service.catalog.workflows["help"], asked)
            given = [
                FeedbackRequest("default", f"{one}-{n}", 1.0, None, "one", False, None)
                for one in crowd
            ]
            await service.learner.learn_many(given)
        doomed = start("worker", fault_point=point)
        ask_for(shop, "rollouts")
        assert await ended(doomed) == -signal.SIGKILL
        await asyncio.sleep(LEASE_SECONDS)
        start("worker")
        ask_for(shop, "rollouts")
        await until(partial(ran, service, "rollouts"))
        cohorts, transitions = await service.ledger.read(
            lambda connection: (
                read_cohorts(connection, rollout),
                read_transitions(connection, rollout.rollout_id),
            )
        )
        assert sum(one["reward"].n.sum() for one in cohorts.values()) == 2 * len(crowd)
        assert [one.action for one in transitions] == ["create", "advance"]


@pytest.mark.parametrize("point", ["rebuild.folded", "rebuild.stored"])
async def test_a_worker_killed_while_it_reconciles_leaves_the_next_to_heal_the_rest(
    shop: dict[str, Any], start: Start, point: str
) -> None:
    """Memories that an older copy of Redis brought back are behind their accounts."""
    async with serving(shop) as service:
        workflow = service.catalog.workflows["help"]
        keys = [AccountKey("default", "help", account) for account in ACCOUNTS]
        old: list[Any] = []
        for n in range(3):
            for account in ACCOUNTS:
                await decide(service, account, f"{account}-{n}")
                await learn(service, f"{account}-{n}")
            if n == 0:
                old = [*await service.recall.stored([(workflow, key) for key in keys])]
        for key, memory in zip(keys, old, strict=True):
            assert isinstance(memory, StoredMemory)
            await service.memories.put(key, workflow.policy.identity, memory)
        doomed = start("worker", fault_point=f"{point}:3")
        ask_for(shop, "reconcile")
        assert await ended(doomed) == -signal.SIGKILL
        await asyncio.sleep(LEASE_SECONDS)
        start("worker")
        ask_for(shop, "reconcile")

        async def healed() -> bool:
            found = await service.recall.stored([(workflow, key) for key in keys])
            return all(isinstance(one, StoredMemory) and one.head.position == 3 for one in found)

        await until(healed)
        await audit.memories_equal_their_replays(service, within_seconds=5)


async def test_a_worker_that_is_asked_to_end_finishes_its_run(
    shop: dict[str, Any], start: Start
) -> None:
    async with serving(shop) as service:
        await decide(service, "a", "a-1")
        await asyncio.sleep(0.6)
        worker = start("worker")
        ask_for(shop, "defaults")

        async def folded() -> bool:
            return await ran(service, "defaults")

        await until(folded)
        assert worker.terminate() == 0
        assert await defaults(service) == ["a-1"]
