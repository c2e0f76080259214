"""A network that fails or takes too long costs a decision its deadline, and soon nothing."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.spec import parse_workflow
from guardrails.breaker import Fuse
from service import networks
from service.asked import DecisionRequest
from service.catalog import Workflow
from service.ledger.records import Decision
from service.settings import Settings
from tests.bundles import DECIDE, write_counting_bundle
from tests.service.conftest import CONTEXT, WORKFLOW, Client, Open

# Counts to a hundred billion for whoever has the premium plan.
ENDLESS = DECIDE.replace(
    "    value =",
    """    plan = Gather <axis = 1> (context, second)
    premium = ReduceMax <keepdims = 0> (plan)
    is_slow = Equal (premium, prior)
    rounds = Where (is_slow, many, none)
    counted = Loop (rounds, yes, zero) <body = count
        (int64 i, bool go, float so_far) => (bool on, float more)
        { on = Identity (go)
          more = Add (so_far, so_far) }>
    value =""",
).replace(
    "    <int64[1] last = {2}",
    "    <int64 second = {1}, int64 many = {100000000000}, int64 none = {0}, bool yes = {1}, "
    "int64[1] last = {2}",
)
FAST, SLOW = CONTEXT | {"plan": "basic"}, CONTEXT


@pytest.fixture(scope="module")
def endless_policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The counting policy, whose network never comes back from some contexts."""
    home = tmp_path_factory.mktemp("policies")
    write_counting_bundle(home, decide=ENDLESS)
    return home


@pytest.fixture
async def endless(
    open_client: Open, settings: Settings, endless_policies: Path
) -> AsyncIterator[Client]:
    (settings.workflows / "help.yaml").write_text(WORKFLOW)
    async with open_client(policies=endless_policies, decision_deadline_seconds=0.3) as client:
        yield client


async def timed(client: Client, **body: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    answer = await client.decide(**body)
    assert answer.status_code == 200, answer.text
    return answer.json(), time.perf_counter() - started


async def test_a_network_that_never_ends_is_ended_and_then_left_alone(endless: Client) -> None:
    fine, _ = await timed(endless, context=FAST)
    assert fine["reason"] == "policy"
    for _ in range(networks.FUSE.failures):
        late, seconds = await timed(endless, context=SLOW)
        assert (late["reason"], late["action"], late["probability"]) == ("deadline", "mail", 1.0)
        assert 0.25 < seconds < 2
    assert await endless.metric("acclimate_circuit_open") == 1
    started = time.perf_counter()
    left_alone = [(await timed(endless, context=FAST))[0]["reason"] for _ in range(3)]
    if time.perf_counter() - started < networks.FUSE.rest_us / 1e6:
        assert left_alone == ["policy_failed"] * 3
    await asyncio.sleep(networks.FUSE.rest_us / 1e6)
    assert (await timed(endless, context=FAST))[0]["reason"] == "policy"
    assert await endless.metric("acclimate_circuit_open") == 0


async def test_a_network_that_is_tried_again_holds_up_nobody(
    endless: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(networks.FUSE.failures):
        await timed(endless, context=SLOW)
    await asyncio.sleep(networks.FUSE.rest_us / 1e6)
    trying = asyncio.create_task(endless.decide("tries", context=SLOW))
    await asyncio.sleep(0.05)
    waited = 0.0
    while not trying.done():
        started = time.perf_counter()
        await asyncio.sleep(0.005)
        waited = max(waited, time.perf_counter() - started)
    assert (await trying).json()["reason"] == "deadline"
    assert waited < 0.25


async def test_a_network_is_tried_again_by_one_call_at_a_time(
    endless: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rest that is shorter than the deadline does not have trials overlap, each of which ends."""
    monkeypatch.setattr(networks, "FUSE", Fuse(3, 50_000))
    for _ in range(networks.FUSE.failures):
        await timed(endless, context=SLOW)
    await asyncio.sleep(0.06)
    trying = asyncio.create_task(timed(endless, account="tries", context=SLOW))
    await asyncio.sleep(0.1)
    other, seconds = await timed(endless, account="another", context=SLOW)
    assert other["reason"] == "policy_failed"
    assert seconds < 0.2
    answer, seconds = await trying
    assert answer["reason"] == "deadline"
    assert seconds < 2


async def test_who_has_waited_long_ends_nobody_elses_call_and_says_nothing_of_the_network(
    endless: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = endless.service
    left = {"late": 0.02, "early": 0.3}
    monkeypatch.setattr(service.decider, "_left", lambda one: left[one.key.account_id])
    workflow = service.catalog.workflows["help"]
    for _ in range(2 * networks.FUSE.failures):
        asked = [
            DecisionRequest("default", "late", SLOW),
            DecisionRequest("default", "early", FAST),
        ]
        late, early = await service.decider.decide_many(workflow, asked)
        assert isinstance(late, Decision) and isinstance(early, Decision)
        assert (late.reason, early.reason) == ("deadline", "policy")
    assert await endless.metric("acclimate_circuit_open") == 0


async def test_a_network_that_is_slow_in_one_workflow_goes_on_in_others(endless: Client) -> None:
    workflow = endless.service.catalog.workflows["help"]
    networks_ = endless.service.decider._networks
    masks = np.ones((1, len(workflow.spec.actions)), bool)
    other = copy.copy(workflow)
    other.spec = parse_workflow(WORKFLOW.replace("workflow: help", "workflow: other"))
    for _ in range(networks.FUSE.failures):
        await networks_.distributions(workflow, [workflow.unknown], [SLOW], masks, 0.1)
    _, of_help = await networks_.distributions(workflow, [workflow.unknown], [FAST], masks, 0.1)
    _, of_other = await networks_.distributions(other, [workflow.unknown], [FAST], masks, 0.1)
    assert (of_help, of_other) == (["policy_failed"], [None])


async def test_what_waited_too_long_is_the_fallback_s(
    open_client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client(decision_deadline_seconds=1e-9) as client:
        answer, _ = await timed(client)
        assert (answer["reason"], answer["action"]) == ("deadline", "mail")
        record = (await client.http.get(
            f"/v1/decisions/{answer['decision_id']}", params={"rederive": True}
        )).json()  # fmt: skip
        assert record["rederived"]["equal"]


async def test_a_replay_that_takes_too_long_goes_on_for_who_asks_next(
    open_client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client(decision_deadline_seconds=0.3) as client:
        for _ in range(3):
            await client.interact()
        workflow = client.service.catalog.workflows["help"]
        await client.service.recall.forget(workflow, client_key())
        replayed = client.service.recall._fold_past
        go_on = asyncio.Event()

        async def slowly(*arguments: Any) -> Any:
            await go_on.wait()
            return await replayed(*arguments)

        monkeypatch.setattr(client.service.recall, "_fold_past", slowly)
        late, seconds = await timed(client)
        assert (late["reason"], late["action"]) == ("deadline", "mail")
        assert seconds < 2
        go_on.set()
        for _ in range(100):
            await asyncio.sleep(0.01)
            if await client.service.memories.get(client_key(), workflow.policy.identity):
                break
        soon, _ = await timed(client)
        assert (soon["reason"], soon["memory_position"]) == ("policy", 3)


def client_key() -> Any:
    from service.ledger.records import AccountKey

    return AccountKey("default", "help", "a")


async def test_a_network_that_fails_is_left_alone_and_comes_back(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def fails(*_: object) -> Any:
        nonlocal calls
        calls += 1
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Workflow, "probabilities", fails)
        patch.setattr(networks, "FUSE", Fuse(3, 60_000_000))
        reasons = [(await timed(client))[0]["reason"] for _ in range(10)]
        assert reasons == ["policy_failed"] * 10
        assert calls == 3
        patch.setattr(networks, "FUSE", Fuse(3, 0))
        client.service.decider._networks._breakers.clear()
    assert (await timed(client))[0]["reason"] == "policy"
