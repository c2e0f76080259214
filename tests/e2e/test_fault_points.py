"""Killed at any step between its writes, a service comes back with all that it acknowledged."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.fault_points import FAULT_POINTS, parse
from service.runtime import Service, open_service
from service.settings import Settings
from tests.e2e import audit
from tests.e2e.events import Events, settings_of
from tests.service_process import AUTHORIZATION, ServiceProcess

Start = Callable[..., ServiceProcess]

ACCOUNTS = ("a", "b", "c")
MOST_STEPS = 100
VISIT = 4
"""The one at which to die: there is something to lose by then."""
TWO_STORES = (
    "decide.in_transaction",
    "learn.in_transaction",
    "learn.committed",
    "learn.folded",
    "revise.committed",
    "rebuild.folded",
)
"""Points between PostgreSQL and Redis, and where PostgreSQL loses its client."""

VISITED: set[str] = set()


@pytest.mark.parametrize("point", FAULT_POINTS)
async def test_killed_at_a_step_the_embedded_service_comes_back_whole(
    service_process: Start, tmp_path: Path, point: str
) -> None:
    await kill_and_come_back(service_process, tmp_path, point)
    VISITED.add(point)


@pytest.mark.parametrize("point", TWO_STORES)
async def test_killed_between_redis_and_postgresql_the_service_comes_back_whole(
    service_process: Start, tmp_path: Path, redis_url: str, postgres_url: str, point: str
) -> None:
    await kill_and_come_back(
        service_process, tmp_path, point, redis_url=redis_url, ledger_url=postgres_url
    )


def test_every_fault_point_was_visited(request: pytest.FixtureRequest) -> None:
    chosen = {
        one.callspec.params["point"]
        for one in request.session.items
        if isinstance(one, pytest.Function)
        and one.originalname == "test_killed_at_a_step_the_embedded_service_comes_back_whole"
    }
    assert chosen <= VISITED
    assert set(TWO_STORES) <= set(FAULT_POINTS)


@pytest.mark.parametrize("setting", ["", "nowhere", "decide.drawn:0", "decide.drawn:x"])
def test_an_unknown_fault_point_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=r"expected one of decide\.drawn"):
        parse(setting)


async def kill_and_come_back(
    service_process: Start, home: Path, point: str, **servers: str
) -> None:
    """Runs a service until it dies at `point`, opens another on what it left, and looks."""
    shop = settings_of(home, window_seconds=0.3) | servers
    doomed = service_process(**shop, fault_point=f"{point}:{VISIT}")
    async with httpx.AsyncClient(
        base_url=doomed.base_url, timeout=10, headers=AUTHORIZATION
    ) as http:
        events = Events(http)
        await asyncio.gather(*(live(events, account) for account in ACCOUNTS))
    assert doomed.ended(timeout_seconds=10) == -signal.SIGKILL
    assert f"killed at fault point {point}" in doomed.log_tail()
    async with open_service(Settings(data_dir=doomed.data_dir, access="open", **shop)) as service:
        await audit.memories_equal_their_replays(service, within_seconds=5)
        await all_is_there_and_goes_on(service, events)


async def live(events: Events, account: str) -> None:
    """Interacts until the service is gone, for longer than a window."""
    for step in range(MOST_STEPS):
        await events.interact(account, step)
        if events.gone:
            return
        await asyncio.sleep(0.01)


async def all_is_there_and_goes_on(service: Service, events: Events) -> None:
    """Nothing acknowledged is lost, nothing is half done, and everything goes on as before."""
    await audit.everything(service, events)
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        events.http = http
        done = [await in_the_ledger(service, one.path, one.body) for one in events.unanswered]
        retried = list(events.unanswered)
        await events.retry()
        for was_done, one in zip(done, retried, strict=True):
            if "feedback_id" in one.body:
                decision_id = one.path.split("/")[-2]
                told = events.feedback[decision_id, one.body["feedback_id"]]
                assert (told["status"] == "duplicate") == was_done
        for account in ACCOUNTS:
            await goes_on(service, events, account)
    await audit.everything(service, events)
    await audit.memories_equal_their_replays(service, all_stored=True)


async def in_the_ledger(service: Service, path: str, body: dict[str, Any]) -> bool:
    """Whether what was asked had been done when the service died."""
    if "decision_id" in body:
        return await service.ledger.decision("default", body["decision_id"]) is not None
    came = await service.ledger.feedback("default", path.split("/")[-2])
    return any(one.feedback_id == body["feedback_id"] for one in came if one.kind == "received")


async def goes_on(service: Service, events: Events, account: str) -> None:
    """The account's next decision is made from its head, and its feedback is the next position."""
    (before,) = [one for one in await audit.all_accounts(service) if one.key[2] == account]
    decided = await events.decide(account, f"{account}-next")
    assert decided is not None
    assert (decided["memory_generation"], decided["memory_position"]) >= before.head
    learned = await events.learn(f"{account}-next", "first", 2.0)
    assert learned is not None
    assert learned["status"] == "folded"
    assert learned["memory_position"] > decided["memory_position"]
